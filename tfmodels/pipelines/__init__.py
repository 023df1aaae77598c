"""Texts to results in one call: `pipeline` and a class per task."""

from tfmodels.pipelines.base import Pipeline, PipelineException
from tfmodels.pipelines.factory import pipeline
from tfmodels.pipelines.feature_extraction import FeatureExtractionPipeline
from tfmodels.pipelines.fill_mask import FillMaskPipeline
from tfmodels.pipelines.question_answering import QuestionAnsweringPipeline
from tfmodels.pipelines.sentence_similarity import SentenceSimilarityPipeline
from tfmodels.pipelines.text_classification import TextClassificationPipeline
from tfmodels.pipelines.text_generation import TextGenerationPipeline
from tfmodels.pipelines.token_classification import TokenClassificationPipeline
from tfmodels.pipelines.zero_shot_classification import ZeroShotClassificationPipeline

NerPipeline = TokenClassificationPipeline

__all__ = [
    "FeatureExtractionPipeline",
    "FillMaskPipeline",
    "NerPipeline",
    "Pipeline",
    "PipelineException",
    "QuestionAnsweringPipeline",
    "SentenceSimilarityPipeline",
    "TextClassificationPipeline",
    "TextGenerationPipeline",
    "TokenClassificationPipeline",
    "ZeroShotClassificationPipeline",
    "pipeline",
]

"""Training batches of texts, on tf.data.

Text is tokenised once, into columns: a dict of rows under the names of a model's inputs, which is what a tokenizer
returns. `pack`, `tokenize_words` and `question_windows` make columns for language models, for tokens with labels and
for questions; `batches` turns any columns into a `tf.data.Dataset` of padded batches for `fit`.
"""

from tfmodels.training.data.batching import batches
from tfmodels.training.data.language_models import mask_tokens, pack
from tfmodels.training.data.position import Position
from tfmodels.training.data.questions import Answer, Windows, best_answers, question_windows
from tfmodels.training.data.words import tokenize_words

__all__ = [
    "Answer",
    "Position",
    "Windows",
    "batches",
    "best_answers",
    "mask_tokens",
    "pack",
    "question_windows",
    "tokenize_words",
]

"""Fine-tuning scripts as the TensorFlow documentation of transformers had them: only the import is another."""

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf

import tfmodels
from tfmodels import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorForMultipleChoice,
    DataCollatorForTokenClassification,
    DataCollatorWithPadding,
    DefaultDataCollator,
    KerasMetricCallback,
    TFAutoModelForCausalLM,
    TFAutoModelForQuestionAnswering,
    TFAutoModelForSequenceClassification,
    TFAutoModelForTokenClassification,
    create_optimizer,
    set_seed,
)

datasets = pytest.importorskip("datasets", reason="these scripts read their data with the datasets library")
datasets.disable_progress_bars()

NAMES = ["Lily", "Tom", "Ben", "Anna"]
SENTENCES = [f"{name} {'loves' if n % 2 else 'hates'} the big red ball." for n in range(4) for name in NAMES]


@pytest.fixture(scope="module")
def tokenizer():
    tokenizer = AutoTokenizer.from_pretrained("stories260K")
    tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def test_sequence_classification(tokenizer):
    set_seed(42)
    reviews = datasets.Dataset.from_dict(
        {"text": SENTENCES, "label": [int("loves" in text) for text in SENTENCES], "idx": range(16)}
    )
    tokenized = reviews.map(lambda examples: tokenizer(examples["text"], truncation=True), batched=True)
    data_collator = DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="tf")
    model = TFAutoModelForSequenceClassification.from_pretrained(
        "stories260K",
        num_labels=2,
        id2label={0: "NEGATIVE", 1: "POSITIVE"},
        label2id={"NEGATIVE": 0, "POSITIVE": 1},
        pad_token_id=tokenizer.pad_token_id,
    )
    with pytest.warns(UserWarning, match="takes no idx, text; these columns of the data are left out"):
        train = model.prepare_tf_dataset(tokenized, shuffle=True, batch_size=4, collate_fn=data_collator)
    held_out = model.prepare_tf_dataset(
        tokenized.remove_columns(["idx", "text"]), shuffle=False, batch_size=8, collate_fn=data_collator
    )
    epochs = 12
    optimizer, _ = create_optimizer(init_lr=5e-3, num_warmup_steps=2, num_train_steps=len(train) * epochs)
    model.compile(optimizer=optimizer)

    def compute_metrics(eval_pred):
        predictions, labels = eval_pred
        return {"accuracy": float(np.mean(np.argmax(predictions, axis=1) == labels))}

    history = model.fit(
        x=train,
        validation_data=held_out,
        epochs=epochs,
        callbacks=[KerasMetricCallback(metric_fn=compute_metrics, eval_dataset=held_out)],
        verbose=0,
    ).history
    assert history["accuracy"][-1] == 1.0 and history["val_loss"][-1] < 0.5 * history["val_loss"][0]
    assert float(optimizer.learning_rate) == pytest.approx(0.0, abs=1e-9) and len(train) == 4
    inputs = tokenizer("Lily loves the big red ball.", return_tensors="tf")
    assert model.config.id2label[int(tf.math.argmax(model(**inputs).logits, axis=-1)[0])] == "POSITIVE"


@pytest.mark.slow
def test_token_classification(tokenizer):
    set_seed(0)
    words = [text.split(" ") for text in SENTENCES]
    tags = [[int(word in NAMES) for word in sentence] for sentence in words]
    wnut = datasets.Dataset.from_dict({"id": [str(n) for n in range(16)], "tokens": words, "ner_tags": tags})

    def tokenize_and_align_labels(examples):
        tokenized_inputs = tokenizer(examples["tokens"], truncation=True, is_split_into_words=True)
        labels = []
        for i, label in enumerate(examples["ner_tags"]):
            previous_word_idx, label_ids = None, []
            for word_idx in tokenized_inputs.word_ids(batch_index=i):
                new = word_idx is not None and word_idx != previous_word_idx
                label_ids.append(label[word_idx] if new else -100)
                previous_word_idx = word_idx
            labels.append(label_ids)
        tokenized_inputs["labels"] = labels
        return tokenized_inputs

    tokenized = wnut.map(tokenize_and_align_labels, batched=True)
    model = TFAutoModelForTokenClassification.from_pretrained(
        "stories260K", num_labels=2, id2label={0: "O", 1: "B-person"}, label2id={"O": 0, "B-person": 1}
    )
    data_collator = DataCollatorForTokenClassification(tokenizer=tokenizer, return_tensors="tf")
    train = tokenized.to_tf_dataset(
        columns=["attention_mask", "input_ids", "labels"], shuffle=True, batch_size=8, collate_fn=data_collator
    )
    optimizer, _ = create_optimizer(init_lr=5e-3, num_train_steps=20, weight_decay_rate=0.01, num_warmup_steps=0)
    model.compile(optimizer=optimizer)
    losses = model.fit(x=train, epochs=10, verbose=0).history["loss"]
    assert losses[-1] < 0.3 * losses[0]
    predicted = np.argmax(model(**tokenizer("Anna loves the ball.", return_tensors="tf")).logits, axis=-1)
    assert predicted[0, 1] == 1


@pytest.mark.slow
def test_question_answering(tokenizer):
    set_seed(0)
    contexts = [f"{name} has a {thing}." for name in NAMES for thing in ("ball", "kite", "dog", "cat")]
    squad = datasets.Dataset.from_dict(
        {
            "question": ["Who is it?"] * 16,
            "context": contexts,
            "answers": [{"text": [text.split(" ")[0]], "answer_start": [0]} for text in contexts],
        }
    )

    def preprocess_function(examples):
        inputs = tokenizer(
            examples["question"],
            examples["context"],
            max_length=40,
            truncation="only_second",
            return_offsets_mapping=True,
            padding="max_length",
        )
        offset_mapping = inputs.pop("offset_mapping")
        inputs["start_positions"], inputs["end_positions"] = [], []
        for i, offset in enumerate(offset_mapping):
            end_char = len(examples["answers"][i]["text"][0])
            context = [n for n, part in enumerate(inputs.sequence_ids(i)) if part == 1]
            inside = [n for n in context if offset[n][0] < end_char]
            inputs["start_positions"].append(inside[0])
            inputs["end_positions"].append(inside[-1])
        return inputs

    tokenized = squad.map(preprocess_function, batched=True, remove_columns=squad.column_names)
    model = TFAutoModelForQuestionAnswering.from_pretrained("stories260K")
    train = model.prepare_tf_dataset(
        tokenized, shuffle=True, batch_size=8, collate_fn=DefaultDataCollator(return_tensors="tf")
    )
    optimizer, _ = create_optimizer(init_lr=5e-3, num_warmup_steps=0, num_train_steps=30)
    model.compile(optimizer=optimizer)
    losses = model.fit(x=train, epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.2 * losses[0]
    question, context = "Who is it?", "Tom has a kite."
    inputs = tokenizer(question, context, return_tensors="tf")
    outputs = model(**inputs)
    start, end = (int(tf.math.argmax(logits, axis=-1)[0]) for logits in (outputs.start_logits, outputs.end_logits))
    assert tokenizer.decode(inputs["input_ids"][0, start : end + 1]).strip() == "Tom"


@pytest.mark.slow
def test_causal_language_modelling(tokenizer):
    set_seed(0)
    eli5 = datasets.Dataset.from_dict({"text": SENTENCES})
    tokenized = eli5.map(lambda examples: tokenizer(examples["text"]), batched=True, remove_columns=["text"])
    block_size = 16

    def group_texts(examples):
        joined = {name: [token for row in examples[name] for token in row] for name in examples}
        total = len(joined["input_ids"]) // block_size * block_size
        return {name: [t[i : i + block_size] for i in range(0, total, block_size)] for name, t in joined.items()}

    blocks = tokenized.map(group_texts, batched=True)
    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm=False, return_tensors="tf")
    model = TFAutoModelForCausalLM.from_pretrained("stories260K")
    train = model.prepare_tf_dataset(blocks, shuffle=True, batch_size=4, collate_fn=data_collator)
    optimizer = tfmodels.AdamWeightDecay(learning_rate=2e-3, weight_decay_rate=0.01)
    model.compile(optimizer=optimizer)
    before = model.evaluate(train, verbose=0)
    model.fit(x=train, validation_data=train, epochs=5, verbose=0)
    assert model.evaluate(train, verbose=0) < 0.5 * before
    inputs = tokenizer("Lily loves the", return_tensors="tf").input_ids
    outputs = model.generate(inputs, max_new_tokens=4, do_sample=False)
    assert "big red" in tokenizer.batch_decode(outputs, skip_special_tokens=True)[0]


def mpnet_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers

    words = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", *sorted({w for s in SENTENCES for w in s.split(" ")})]
    tokenizer = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    special = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "mask_token": "<mask>"}
    return tfmodels.PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>", **special)


@pytest.mark.slow
def test_masked_language_modelling():
    set_seed(0)
    tokenizer = mpnet_tokenizer()
    tokenized = datasets.Dataset.from_dict(dict(tokenizer(SENTENCES)))
    data_collator = DataCollatorForLanguageModeling(tokenizer=tokenizer, mlm_probability=0.3, return_tensors="tf")
    model = small.make("mpnet", "ForMaskedLM")
    train = model.prepare_tf_dataset(tokenized, shuffle=True, batch_size=8, collate_fn=data_collator)
    model.compile(optimizer=tfmodels.AdamWeightDecay(learning_rate=1e-2, weight_decay_rate=0.01), jit_compile=False)
    losses = model.fit(x=train, epochs=25, verbose=0).history["loss"]
    assert np.mean(losses[-5:]) < 0.5 * losses[0]


@pytest.mark.slow
def test_multiple_choice():
    set_seed(0)
    tokenizer = mpnet_tokenizer()
    pairs = [
        [f"{name} loves the ball.", f"{name} hates the big ball."][:: -1 if n % 2 else 1]
        for n in range(4)
        for name in NAMES
    ]
    swag = datasets.Dataset.from_dict({"sent": pairs, "label": [n % 2 for n in range(4) for _ in NAMES]})

    def preprocess_function(examples):
        flat = tokenizer([ending for endings in examples["sent"] for ending in endings])
        return {name: [rows[i : i + 2] for i in range(0, len(rows), 2)] for name, rows in flat.items()}

    tokenized = swag.map(preprocess_function, batched=True)
    model = small.make("mpnet", "ForMultipleChoice", hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    collate = DataCollatorForMultipleChoice(tokenizer=tokenizer, return_tensors="tf")
    with pytest.warns(UserWarning, match="takes no sent"):
        train = model.prepare_tf_dataset(tokenized, shuffle=False, batch_size=8, collate_fn=collate)
    features, labels = next(iter(train))
    assert features["input_ids"].shape == (8, 2, 5) and labels.shape == (8,)
    model.compile(optimizer=keras.optimizers.Adam(1e-2), metrics=["accuracy"], jit_compile=False)
    assert model.fit(x=train, epochs=15, verbose=0).history["accuracy"][-1] == 1.0

"""Fine-tuning scripts as the TensorFlow documentation of transformers had them: only the import is another."""

import keras
import numpy as np
import pytest
import small_models as small
import tensorflow as tf
from former_files import as_former_file

import tfmodels
from tfmodels import (
    AutoTokenizer,
    BertConfig,
    BertTokenizerFast,
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
    TFBertForSequenceClassification,
    TFBertModel,
    create_optimizer,
    set_seed,
)

datasets = pytest.importorskip("datasets", reason="these scripts read their data with the datasets library")
datasets.disable_progress_bars()

NAMES = ["Lily", "Tom", "Ben", "Anna"]
SENTENCES = [f"{name} {'loves' if n % 2 else 'hates'} the big red ball." for n in range(4) for name in NAMES]


def tokenizer_of(checkpoint):
    tokenizer = AutoTokenizer.from_pretrained(checkpoint)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


@pytest.fixture(scope="module")
def tokenizer():
    return tokenizer_of("stories260K")


WORDS = "lily tom ben anna lo ha ##ves ##tes ##s the big red ball has kite dog cat a who is it . ?"


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    """Folders of a small untrained BERT and its tokenizer, by the file of their weights."""
    vocab = {word: n for n, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS.split(" ")])}
    tokenizer = BertTokenizerFast(vocab=vocab, do_lower_case=True)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    set_seed(0)
    model = TFBertModel(BertConfig(vocab_size=len(vocab), **sizes, max_position_embeddings=64))
    folders = {}
    for name in ("model.safetensors", "tf_model.h5"):
        folders[name] = tmp_path_factory.mktemp(name.partition(".")[0])
        model.save_pretrained(folders[name])
        tokenizer.save_pretrained(folders[name])
    as_former_file(folders["tf_model.h5"], "tf_bert_model", "bert.")
    return folders


@pytest.fixture
def checkpoint(request):
    """A bundled checkpoint, or a folder of `bert`: what the parameter names."""
    return request.getfixturevalue("bert").get(request.param, request.param)


def starting_from(*checkpoints):
    return pytest.mark.parametrize("checkpoint", checkpoints, indirect=True)


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
@starting_from("tf_model.h5")
def test_pairs_of_texts(checkpoint):
    """BERT's own classes: two texts, labels apart from the inputs, a loss and metrics of Keras."""
    set_seed(0)
    pairs = [(one, other) for one in ("loves", "hates") for other in ("loves", "hates") for _ in range(4)]
    mrpc = datasets.Dataset.from_dict(
        {
            "sentence1": [f"{name} {one} it ." for name, (one, _) in zip(NAMES * 4, pairs, strict=True)],
            "sentence2": [f"{name} {other} the ball ." for name, (_, other) in zip(NAMES * 4, pairs, strict=True)],
            "label": [int(other == "loves") for _, other in pairs],
        }
    )
    tokenizer = BertTokenizerFast.from_pretrained(checkpoint)
    tokenized = mrpc.map(lambda row: tokenizer(row["sentence1"], row["sentence2"], truncation=True), batched=True)
    train = tokenized.to_tf_dataset(
        columns=["attention_mask", "input_ids", "token_type_ids"],
        label_cols=["labels"],
        shuffle=True,
        collate_fn=DataCollatorWithPadding(tokenizer=tokenizer, return_tensors="tf"),
        batch_size=8,
    )
    model = TFBertForSequenceClassification.from_pretrained(checkpoint, num_labels=2)
    epochs = 15
    optimizer, schedule = create_optimizer(init_lr=5e-3, num_warmup_steps=0, num_train_steps=len(train) * epochs)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer=optimizer, loss=loss, metrics=["accuracy"])
    history = model.fit(train, validation_data=train, epochs=epochs, verbose=0).history
    assert history["val_accuracy"][-1] == 1.0 and float(schedule(len(train) * epochs)) == pytest.approx(0.0, abs=1e-9)
    inputs = tokenizer("Tom hates it .", "Tom loves the ball .", return_tensors="tf")
    probabilities = tf.nn.softmax(model(inputs)[0], axis=-1)
    assert int(tf.argmax(probabilities, axis=-1)[0]) == 1 and inputs["token_type_ids"][0].numpy().sum() == 7


@pytest.mark.slow
@starting_from("stories260K", "model.safetensors")
def test_token_classification(checkpoint):
    tokenizer = tokenizer_of(checkpoint)
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
        checkpoint, num_labels=2, id2label={0: "O", 1: "B-person"}, label2id={"O": 0, "B-person": 1}
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
@starting_from("stories260K", "tf_model.h5")
def test_question_answering(checkpoint):
    tokenizer = tokenizer_of(checkpoint)
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
    model = TFAutoModelForQuestionAnswering.from_pretrained(checkpoint)
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
    assert tokenizer.decode(inputs["input_ids"][0, start : end + 1]).strip().title() == "Tom"


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

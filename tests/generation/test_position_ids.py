"""`generate(position_ids=...)`: the prompt has the positions given, and new tokens go on from each row's last one."""

import numpy as np
import pytest
import small_models as small

# The first row is padded on the left, where any position may stand; the second jumps before its last token.
IDS = np.array([[0, 7, 30, 12, 8], [5, 9, 44, 9, 3]])
MASK = np.array([[0, 1, 1, 1, 1], [1, 1, 1, 1, 1]])
POSITIONS = np.array([[-1, 7, 9, 0, 1], [0, 1, 2, 3, 16]])
GRAPH = {"jit_compile": False, "eos_token_id": None, "max_new_tokens": 5}
RECORDED = {"return_dict_in_generate": True, "output_logits": True, "output_scores": True}


@pytest.fixture(scope="module")
def llama():
    return made("llama")


# Positions that turn and those that are learned; GPT-NeoX turns a part of what Llama does.
@pytest.fixture(scope="module", params=["llama", "gpt_neo", pytest.param("gpt_neox", marks=pytest.mark.slow)])
def model(request, llama):
    return llama if request.param == "llama" else made(request.param)


def made(name, **changes):
    model = small.make(name, "ForCausalLM", **changes)
    for weight in model.weights:  # the usual initial weights are too small for texts to differ
        weight.assign(weight * 10 if len(weight.shape) == 2 else weight)
    return model


def logits_after(model, sequences, *, rows=slice(None), positions=POSITIONS):
    """Logits (rows, new, vocab_size) that new tokens were chosen from, by a pass over the whole sequences."""
    new = sequences.shape[1] - IDS.shape[1]
    later = positions[rows, -1:] + 1 + np.arange(new - 1)
    output = model(
        sequences[:, :-1],
        attention_mask=np.pad(MASK[rows], ((0, 0), (0, new - 1)), constant_values=1),
        position_ids=np.concatenate([positions[rows] * MASK[rows], later], axis=1),
        use_cache=True,  # without, positions that restart set texts apart
    )
    return np.asarray(output.logits)[:, IDS.shape[1] - 1 :]


def generated(model, rows=slice(None), **options):
    return model.generate(
        IDS[rows], attention_mask=MASK[rows], position_ids=POSITIONS[rows], **{**GRAPH, **RECORDED, **options}
    )


def test_greedy(model):
    output = generated(model, use_cache=True)
    want = logits_after(model, np.asarray(output.sequences))
    np.testing.assert_allclose(np.stack(output.logits, axis=1), want, atol=1e-4)
    np.testing.assert_array_equal(np.asarray(output.sequences)[:, IDS.shape[1] :], want.argmax(-1))
    plain = np.asarray(model.generate(IDS, attention_mask=MASK, **GRAPH, **RECORDED).logits)
    assert np.abs(plain - np.asarray(output.logits)).max() > 0.01


@pytest.mark.quick(3)
@pytest.mark.parametrize(
    "options",
    [
        {"do_sample": True, "seed": 3, "use_cache": False, "num_return_sequences": 2},
        {"guidance_scale": 1.5},
        {"prefill_chunk_size": 2},
        {"do_sample": True, "seed": 3},
        {"jit_compile": True},
        {"use_cache": False},
        {"penalty_alpha": 0.6, "top_k": 3},
        {"logits_processor": [lambda ids, scores: scores]},
    ],
    ids=lambda options: " ".join(options),
)
def test_ways_of_decoding(llama, options):
    output = generated(llama, **options)
    rows = np.repeat(np.arange(2), options.get("num_return_sequences", 1))
    want = logits_after(llama, np.asarray(output.sequences), rows=rows)
    np.testing.assert_allclose(np.stack(output.logits, axis=1), want, atol=1e-4)


@pytest.mark.quick(1)
@pytest.mark.parametrize("options", [{"prompt_lookup_num_tokens": 2}, {"assistant_model": True}], ids=str)
def test_drafts(llama, options):
    if "assistant_model" in options:
        options = {"assistant_model": llama, "num_assistant_tokens": 2}
    output = generated(llama, slice(1, 2), **options)
    want = logits_after(llama, np.asarray(output.sequences), rows=slice(1, 2))
    np.testing.assert_allclose(np.stack(output.logits, axis=1), want, atol=1e-4)


@pytest.mark.quick(1)
@pytest.mark.parametrize("use_cache", [False, True])
def test_beams(llama, use_cache):
    output = generated(llama, num_beams=3, num_return_sequences=2, length_penalty=0.0, use_cache=use_cache)
    sequences = np.asarray(output.sequences)
    logits = logits_after(llama, sequences, rows=[0, 0, 1, 1]).astype("float64")
    scores = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    chosen = np.take_along_axis(scores, sequences[:, IDS.shape[1] :, None], axis=2)
    np.testing.assert_allclose(output.sequences_scores, chosen.sum(axis=(1, 2)), atol=1e-4)


def test_embeddings_and_a_cache_of_the_first_columns(llama):
    want = generated(llama)
    embeds = llama.get_input_embeddings()(IDS)
    got = llama.generate(inputs_embeds=embeds, attention_mask=MASK, position_ids=POSITIONS, **GRAPH)
    np.testing.assert_array_equal(got, np.asarray(want.sequences)[:, IDS.shape[1] :])
    past = llama(IDS[:, :3], attention_mask=MASK[:, :3], position_ids=POSITIONS[:, :3] * MASK[:, :3], use_cache=True)
    got = generated(llama, past_key_values=past.past_key_values)
    np.testing.assert_allclose(got.logits, want.logits, atol=1e-4)


def test_hidden_states_and_weights(llama):
    output = generated(llama, output_hidden_states=True, output_attentions=True)
    for logits, states in zip(output.logits, output.hidden_states, strict=True):
        np.testing.assert_allclose(llama.to_logits(states[-1][:, -1:])[:, 0], logits, atol=1e-4)
    # The third column restarts in the first row, and sees the columns before it.
    assert np.asarray(output.attentions[0][0])[0, :, 3, 1:3].min() > 0


def test_spellings(llama):
    want = llama.generate(IDS[1:], position_ids=POSITIONS[1:], **GRAPH)
    for given in (POSITIONS[1], POSITIONS[1].tolist(), POSITIONS[1:].astype("int64")):
        np.testing.assert_array_equal(llama.generate(IDS[1:], position_ids=given, **GRAPH), want)
    np.testing.assert_array_equal(llama.generate({"input_ids": IDS[1:], "position_ids": POSITIONS[1:]}, **GRAPH), want)
    both = np.asarray(llama.generate(np.repeat(IDS[1:], 2, axis=0), position_ids=POSITIONS[1], **GRAPH))
    np.testing.assert_array_equal(both, np.repeat(want, 2, axis=0))


@pytest.mark.parametrize(
    "positions, message",
    [
        ([[0, 1]], r"position_ids have shape \(1, 2\); the prompt's, \(2, 5\)"),
        (POSITIONS + 0.5, "position_ids hold float64 numbers; integers"),
        (POSITIONS - 5, "position_ids go down to -5"),
    ],
)
def test_wrong_positions(llama, positions, message):
    with pytest.raises(ValueError, match=message):
        llama.generate(IDS, attention_mask=MASK, position_ids=positions, **GRAPH)


def test_positions_beyond_those_of_the_model():
    model = made("gpt_neo")  # 32 of them
    with pytest.raises(ValueError, match="prompt up to position 31 plus 5 new tokens exceed.*no positions beyond"):
        model.generate(IDS, position_ids=np.arange(27, 32), **GRAPH)
    with pytest.raises(ValueError, match="prompt up to position 32 plus"):
        model.generate(IDS, position_ids=[32, 0, 1, 2, 3], **GRAPH)
    del (options := dict(GRAPH))["max_new_tokens"]
    assert model.generate(IDS, position_ids=np.arange(20, 25), **options).shape == (2, 5 + 7)


def test_mpt_has_positions_where_they_are_learned():
    alibi = made("mpt")
    with pytest.raises(ValueError, match="position_ids: TFMptForCausalLM has ALiBi"):
        alibi.generate(IDS, position_ids=POSITIONS, **GRAPH)
    learned = made("mpt", attn_config={"alibi": False})
    output = generated(learned)
    np.testing.assert_allclose(
        np.stack(output.logits, axis=1), logits_after(learned, np.asarray(output.sequences)), atol=1e-4
    )


def test_labels_change_nothing(llama):
    with pytest.warns(UserWarning, match="generate has no use for labels"):
        got = llama.generate(IDS, attention_mask=MASK, labels=IDS, **GRAPH)
    np.testing.assert_array_equal(got, llama.generate(IDS, attention_mask=MASK, labels=None, **GRAPH))

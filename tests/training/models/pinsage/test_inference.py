"""Layer-wise inference equals recursion; new pins are answered without training; Arrow partitions agree."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from tests.training.models.pinsage.graphs import CONTENT, random_inputs, random_neighbourhoods, small_network
from training.models.pinsage import (
    Neighbourhoods,
    PinSage,
    Pooling,
    embed_catalogue,
    embed_catalogue_with_latents,
    embed_new_pins,
    embed_pins,
    pin_inputs,
)
from training.models.pinsage.blocks import BlockBuilder
from training.models.pinsage.inference import pooled_graph
from training.models.pinsage.partitions import (
    head_vectors,
    join_latents,
    pool_messages,
    project_latents,
)
from validation.tables import VECTOR


@pytest.mark.parametrize("pooling", list(Pooling))
@pytest.mark.parametrize("partition", [1, 17, 1000])
def test_layerwise_equals_recursion(pooling: Pooling, partition: int) -> None:
    network, graph = small_network(pooling), random_neighbourhoods(90, 6)
    inputs = random_inputs(90, network)
    vectors = embed_catalogue(network, inputs, graph, partition=partition)
    for seeds in (np.arange(90), np.array([5]), np.array([88, 0, 7])):
        np.testing.assert_allclose(vectors[seeds], embed_pins(network, inputs, graph, seeds), atol=1e-6)
    assert np.ptp(vectors, axis=0).min() > 1e-3, "all pins got one vector: the comparison would be empty"


def test_a_new_pin_gets_its_vector_without_retraining_or_another_pass() -> None:
    network, old = small_network(), random_neighbourhoods(50, 6)
    inputs = random_inputs(53, network)
    ids = np.array([[3, 7, -1], [1, -1, -1], [-1, -1, -1]], np.int32)
    weights = np.array([[2, 1, 0], [1, 0, 0], [0, 0, 0]], np.float32)
    new = Neighbourhoods.from_padded(ids, weights, np.array([50, 51, 52]))
    latents = embed_catalogue_with_latents(network, inputs[:50], old)
    got = embed_new_pins(network, inputs[50:], new, latents)

    grown = Neighbourhoods(
        np.concatenate([old.offsets, old.offsets[-1] + new.offsets[1:]]),
        np.concatenate([old.ids, new.ids]),
        np.concatenate([old.weights, new.weights]),
    )
    everything = embed_catalogue(network, inputs, grown)
    np.testing.assert_allclose(got, everything[50:], atol=1e-6)
    np.testing.assert_array_equal(everything[:50], latents.vectors)
    assert np.abs(got[0] - got[1]).max() > 1e-4


def test_pins_without_edges_are_their_content_alone() -> None:
    network = small_network()
    inputs = random_inputs(4, network)
    alone = embed_catalogue(network, inputs, Neighbourhoods.none(4))
    assert np.isfinite(alone).all()
    lonely = embed_pins(network, inputs, random_neighbourhoods(4, 3), np.array([0]))  # pin 0 has no neighbour
    np.testing.assert_allclose(lonely[0], alone[0], atol=1e-6)


def test_content_that_is_not_finite_counts_as_none() -> None:
    network = small_network()
    content = np.ones((3, CONTENT), np.float32)
    content[0, 4], content[1, 0] = np.nan, np.inf
    degrees = np.array([2, 2, 2])
    inputs = pin_inputs(content, degrees, network.config)
    assert np.isfinite(inputs).all()
    empty = pin_inputs(np.zeros((3, CONTENT), np.float32), degrees, network.config)
    np.testing.assert_array_equal(inputs[:2], empty[:2])
    graph = Neighbourhoods.from_padded(np.array([[1], [2], [0]], np.int32), np.ones((3, 1), np.float32))
    assert np.isfinite(embed_catalogue(network, inputs, graph)).all()


def test_inputs_of_another_length_are_refused() -> None:
    network = small_network()
    with pytest.raises(ValueError, match="one a pin"):
        embed_catalogue(network, random_inputs(5, network), Neighbourhoods.none(4))
    with pytest.raises(ValueError, match="negative"):
        pin_inputs(np.zeros((1, 2), np.float32), np.array([-1]), network.config)


def test_an_empty_catalogue_has_no_vectors() -> None:
    network = small_network()
    assert embed_catalogue(network, random_inputs(0, network), Neighbourhoods.none(0)).shape == (0, 8)


@pytest.mark.parametrize("pooling", list(Pooling))
def test_arrow_partitions_agree_with_arrays(pooling: Pooling) -> None:
    network, graph = small_network(pooling), random_neighbourhoods(40, 5)
    inputs = random_inputs(40, network)
    vectors = embed_catalogue(network, inputs, graph)
    rng = np.random.default_rng(5)
    ids = rng.permutation(np.arange(1000, 1040))  # pin ids, in no order
    weighted = pooled_graph(graph, pooling)
    edges = pa.table(
        {
            "pin_id": ids[np.repeat(np.arange(40), np.diff(weighted.offsets))],
            "neighbour_id": ids[weighted.ids],
            "weight": weighted.weights,
        }
    )
    latents = pa.table({"pin_id": ids, "latent": pa.array(list(inputs), VECTOR)})
    for layer in range(network.config.layers):
        said = _spread(latents, lambda part, k=layer: project_latents(part, network, k), rng)
        messages = edges.join(_scalar(said, "said"), "neighbour_id", "pin_id")
        messages = _listed(messages, said, "said", "neighbour_id")
        pooled = _by_pin(messages, lambda part: pool_messages(part, network))
        joined = _listed(latents, pooled, "pooled", "pin_id")
        latents = _spread(joined, lambda part, k=layer: join_latents(part, network, k), rng)
    out = _spread(latents, lambda part: head_vectors(part, network), rng).to_pandas().set_index("pin_id")
    np.testing.assert_allclose(np.stack(out.loc[ids, "vector"]), vectors, atol=1e-6)


def _spread(table: pa.Table, step, rng: np.random.Generator) -> pa.Table:
    """`step` over shuffled partitions of uneven size."""
    shuffled = table.take(rng.permutation(len(table)))
    parts = [shuffled.slice(0, 1), shuffled.slice(1, 20), shuffled.slice(21)]
    return pa.concat_tables([step(part) for part in parts if len(part)])


def _by_pin(messages: pa.Table, step) -> pa.Table:
    odd = messages["pin_id"].to_numpy() % 2 == 1
    return pa.concat_tables([step(messages.filter(pa.array(odd))), step(messages.filter(pa.array(~odd)))])


def _scalar(table: pa.Table, column: str) -> pa.Table:
    return table.drop([column])


def _listed(left: pa.Table, right: pa.Table, column: str, key: str) -> pa.Table:
    """A left join that carries a list column, which pyarrow's own join does not."""
    found = dict(zip(right["pin_id"].to_pylist(), right[column].to_pylist(), strict=True))
    return left.append_column(column, pa.array([found.get(k) for k in left[key].to_pylist()], VECTOR))


def test_saved_networks_come_back(tmp_path) -> None:
    network, graph = small_network(Pooling.MEAN, length_power=0.0), random_neighbourhoods(20, 4)
    inputs = random_inputs(20, network)
    network.save(tmp_path / "model")
    again = PinSage.load(tmp_path / "model")
    assert again.config == network.config
    expected = embed_catalogue(network, inputs, graph)
    np.testing.assert_array_equal(embed_catalogue(again, inputs, graph), expected)
    assert {p.suffix for p in (tmp_path / "model").iterdir()} == {".safetensors", ".json"}


def test_length_power_says_how_much_of_a_length_is_served() -> None:
    graph = random_neighbourhoods(40, 6)
    raw = small_network(length_power=1.0)
    inputs = random_inputs(40, raw)
    answers = embed_catalogue(raw, inputs, graph)
    lengths = np.linalg.norm(answers, axis=1)
    assert lengths.max() > 1.1 * lengths.min(), "all lengths alike: the comparison would be empty"
    for power in (0.0, 0.25, 0.5):
        network = small_network(length_power=power)
        network.load_state_dict(raw.state_dict())
        network.scale.fill_(2.0)
        served = embed_catalogue(network, inputs, graph)
        np.testing.assert_allclose(np.linalg.norm(served, axis=1), lengths**power / 2, rtol=1e-5)
        cosine = 2 * (served * answers).sum(axis=1) / lengths ** (1 + power)
        np.testing.assert_allclose(cosine, 1, atol=1e-5)
        block = BlockBuilder(graph).build(np.arange(40), network.config.layers)
        with torch.inference_mode():  # the loss compares answers, whatever is served
            compared = network(torch.from_numpy(inputs[block.nodes]), block).numpy()
        np.testing.assert_allclose(compared, answers, atol=1e-6)


@pytest.mark.parametrize("length_power", [0.0, 0.25, 1.0])
def test_an_answer_of_zeros_stays_finite(length_power: float) -> None:
    network = small_network(length_power=length_power)
    served = network.served(torch.zeros(2, 8))
    assert served.abs().sum() == 0


def test_parts_that_no_board_connects_do_not_hear_of_each_other() -> None:
    network, one, other = small_network(), random_neighbourhoods(20, 5, 1), random_neighbourhoods(30, 5, 2)
    both = Neighbourhoods(
        np.concatenate([one.offsets, one.offsets[-1] + other.offsets[1:]]),
        np.concatenate([one.ids, other.ids + 20]).astype(np.int32),
        np.concatenate([one.weights, other.weights]),
    )
    inputs = random_inputs(50, network)
    together = embed_catalogue(network, inputs, both)
    np.testing.assert_allclose(together[:20], embed_catalogue(network, inputs[:20], one), atol=1e-6)
    changed = inputs.copy()
    changed[20:] += 1
    np.testing.assert_array_equal(embed_catalogue(network, changed, both)[:20], together[:20])

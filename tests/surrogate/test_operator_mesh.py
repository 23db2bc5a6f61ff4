"""Meshes of networks between fields: graphs, pooling, grids and node weights, by hand."""

from types import SimpleNamespace

import numpy as np
from operator_cases import rectangle
import pytest
import torch

from sobofem.surrogate.operators import Mesh
from sobofem.surrogate.operators.mesh import cliques, hops, pooled
from sobofem.surrogate.operators.mesh_networks import Aggregation


def l_shape():
    """Squares of 4 x 3 without those above and right of the middle: 16 of 20 nodes."""
    return rectangle(4, 3, cell="quad", keep=lambda middle: middle[0] < 2.0 or middle[1] < 1.0)


def test_nodes_of_a_cell_are_neighbours_across_its_diagonals_too():
    mesh = rectangle(2, 1, cell="quad")  # nodes 0 1 | 2 3 | 4 5
    expected = [[0, 1, 2, 3]] * 2 + [[0, 1, 2, 3, 4, 5]] * 2 + [[2, 3, 4, 5]] * 2
    assert [row.nonzero()[0].tolist() for row in mesh.adjacency.toarray()] == expected
    receivers, senders = hops(mesh.adjacency, 1)
    assert [senders[receivers == node].tolist() for node in range(6)] == expected
    assert hops(mesh.adjacency, 2).shape == (2, 36)


def test_pairs_of_k_hops_are_those_of_the_kth_power():
    graph = rectangle(5, 3).adjacency
    power = np.linalg.matrix_power(graph.toarray().astype(int), 3)
    assert np.array_equal(hops(graph, 3), np.nonzero(power))


@pytest.mark.parametrize("seed", [0, 1])
def test_every_node_is_in_one_clique_of_neighbours(seed):
    graph = rectangle(6, 4).adjacency
    clique = cliques(graph, seed)
    dense = graph.toarray()
    assert set(clique) == set(range(clique.max() + 1)) and clique.max() + 1 < 35 / 2
    for number in range(clique.max() + 1):
        members = np.flatnonzero(clique == number)
        assert dense[np.ix_(members, members)].all()


def test_a_lonely_node_is_a_clique_of_its_own():
    mesh = Mesh.of(SimpleNamespace(points=np.eye(4, 2), cells=np.array([[1, 2, 3]]), cell="triangle"))
    clique = cliques(mesh.adjacency, 0)
    assert sorted(np.bincount(clique)) == [1, 3]


def test_cliques_are_neighbours_where_any_of_their_nodes_are():
    graph = rectangle(4, 3).adjacency
    clique = cliques(graph, 3)
    coarse = pooled(graph, clique).toarray()
    for a, b in np.ndindex(coarse.shape):
        assert coarse[a, b] == graph.toarray()[np.ix_(clique == a, clique == b)].any()


CUBE = np.array([[0, 0, 0], [2, 0, 0], [2, 1, 0], [0, 1, 0], [0, 0, 3], [2, 0, 3], [2, 1, 3], [0, 1, 3]], dtype=float)


@pytest.mark.parametrize(
    "points, cells, cell, expected",
    [
        (CUBE, [range(8)], "hexahedron", [6 / 8] * 8),
        (CUBE, [[0, 1, 3, 4]], "tetra", [0.25, 0.25, 0, 0.25, 0.25, 0, 0, 0]),
        (CUBE[[0, 1, 2, 3], :2], [range(4)], "quad", [0.5] * 4),
        (CUBE[:4], [[0, 1, 2], [0, 2, 3]], "triangle", [2 / 3, 1 / 3, 2 / 3, 1 / 3]),
        (CUBE[[0, 1, 5]], [[0, 1], [1, 2]], "line", [1.0, 2.5, 1.5]),
    ],
)
def test_nodes_share_the_volume_of_their_cells(points, cells, cell, expected):
    mesh = Mesh.of(SimpleNamespace(points=points, cells=np.array([list(each) for each in cells]), cell=cell))
    assert np.allclose(mesh.node_weights, expected)


def test_an_l_is_a_grid_with_a_part_missing():
    mesh = l_shape()
    grid = mesh.grid
    assert grid.shape == (5, 4) and len(mesh) == 16 and not grid.full
    nodes = grid.nodes((6, 4))
    assert (nodes[5] == 16).all() and (nodes[3:5, 2:] == 16).all()
    for place in np.argwhere(nodes < 16):
        assert np.array_equal(mesh.points[nodes[tuple(place)]], place)


def test_grids_may_have_lines_at_unequal_distances_but_scattered_nodes_have_none():
    mesh = rectangle(4, 3)
    stretched = Mesh(mesh.points**2, mesh.cells, mesh.cell)
    assert stretched.grid.full and stretched.grid.shape == (5, 4)
    moved = mesh.points + np.random.default_rng(0).uniform(-0.2, 0.2, mesh.points.shape)
    assert Mesh(moved, mesh.cells, mesh.cell).grid is None


def test_a_plane_in_space_is_a_grid_of_two_axes():
    mesh = rectangle(4, 3)
    points = np.insert(mesh.points, 1, 7.0, axis=1)
    assert Mesh(points, mesh.cells, mesh.cell).grid.shape == (5, 4)


@pytest.mark.parametrize("change, reason", [({"cell": "wedge"}, "wedge"), ({"cells": [[0, 1, 9]]}, "0 to 9")])
def test_what_is_no_mesh_is_refused(change, reason):
    parts = {"points": np.eye(3, 2), "cells": [[0, 1, 2]], "cell": "triangle", **change}
    with pytest.raises(ValueError, match=reason):
        Mesh.of(SimpleNamespace(**parts))
    with pytest.raises(TypeError, match="lacks cells"):
        Mesh.of(SimpleNamespace(points=parts["points"], cell="triangle"))


def test_aggregation_equals_a_dense_matrix():
    mesh = rectangle(3, 2)
    P, inputs, outputs = len(mesh), 3, 2
    layer = Aggregation(hops(mesh.adjacency, 2), P, inputs, outputs).double()
    dense = torch.zeros(P, outputs, P, inputs, dtype=torch.float64)
    for receiver, sender, weight in zip(layer.receivers, layer.senders, layer.weight, strict=True):
        dense[receiver, :, sender] = weight.T
    x = torch.randn(P, 4, inputs, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    expected = torch.einsum("pojc,jbc->pbo", dense, x) + layer.bias
    assert torch.allclose(layer(x), expected, atol=1e-12)

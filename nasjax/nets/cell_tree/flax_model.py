"""Any recurrent cell as a cell of Flax, for other people's programs.

`flax.linen.RNN(TreeCell.of(tree, 256))` is a layer; with NNX write
`flax.nnx.bridge.ToNNX(TreeCell.of(tree, 256), rngs=flax.nnx.Rngs(0))`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from nasjax.nets.cell_tree.cell import step
from nasjax.nets.cell_tree.recurrent import State, one_step
from nasjax.spaces.cell_tree.named import Program, matrices, program


class TreeCell(nn.RNNCellBase):
    """A cell of the space `cell_tree`, or a reference beside it.

    Its parameters are those of one layer of `recurrent_model`: `{"params": variables["params"]["layer0"]}` fits where
    `use_bias` is the network's `form.bias`. The carry is (c, h), as that of Flax's LSTM cells. States of any leading
    shape: [..., features].

    Attributes:
      cell: in words, or the name of a reference ("lstm", "gru", "rnn"); `TreeCell.of` takes JSON.
      features: H.
      use_bias: a bias is added to the recurrent products.
      kernel_init, recurrent_kernel_init, bias_init: as in Flax's own cells.

    Example:
      >>> cell = TreeCell.of({"space": "cell_tree", "reference": "lstm"}, 4)
      >>> y, _ = nn.RNN(cell).init_with_output(jax.random.key(0), jnp.ones((2, 7, 3)))
      >>> y.shape
      (2, 7, 4)
    """

    cell: Program
    features: int
    use_bias: bool = True
    kernel_init: Any = nn.initializers.lecun_normal()
    recurrent_kernel_init: Any = nn.initializers.orthogonal()
    bias_init: Any = nn.initializers.zeros

    @classmethod
    def of(cls, tree: Mapping[str, Any], features: int, **fields: Any) -> TreeCell:
        """The cell of an architecture as JSON. Raises ValueError."""
        return cls(program(tree), features, **fields)

    @nn.compact
    def __call__(self, carry: State, inputs: jax.Array) -> tuple[State, jax.Array]:
        """One step: ((c, h), x [..., E]) -> ((c, h), h)."""
        columns = matrices(self.cell) * self.features
        weights = {
            "kernel": self.param("kernel", self.kernel_init, (inputs.shape[-1], columns)),
            "recurrent_kernel": self.param("recurrent_kernel", self._blocks, (self.features, columns)),
        }
        if self.use_bias:
            weights["bias"] = self.param("bias", self.bias_init, (columns,))
        shape = inputs.shape[:-1]
        state = jax.tree.map(lambda leaf: leaf.reshape(-1, self.features), carry)
        c, h = one_step(step(self.cell), weights, inputs.reshape(-1, inputs.shape[-1]), state)
        c, h = c.reshape(*shape, self.features), h.reshape(*shape, self.features)
        return (c, h), h

    def _blocks(self, key: jax.Array, shape: tuple[int, int]) -> jax.Array:
        """Every recurrent matrix is drawn by itself."""
        keys = jax.random.split(key, shape[1] // shape[0])
        return jnp.concatenate([self.recurrent_kernel_init(k, (shape[0], shape[0]), jnp.float32) for k in keys], 1)

    @nn.nowrap
    def initialize_carry(self, rng: jax.Array, input_shape: tuple[int, ...]) -> State:
        """Zeros for inputs of shape [..., E]."""
        zeros = jnp.zeros((*input_shape[:-1], self.features), jnp.float32)
        return zeros, zeros

    @property
    def num_feature_axes(self) -> int:
        """The last axis holds the features."""
        return 1

"""The loop of an LSTM over time, with a derivative whose product for the kernel is made once."""

import jax
import jax.numpy as jnp

State = dict[str, jax.Array]


@jax.custom_vjp
def recur(gates: jax.Array, kernel: jax.Array, state: State) -> tuple[jax.Array, State]:
  """Runs a layer of long short-term memory over time, from its state {"h", "c"} [B, units].

      i, f, g, o = gates_t + h_{t-1} W      c_t = sigmoid(f) c_{t-1} + sigmoid(i) tanh(g)
      h_t = sigmoid(o) tanh(c_t)

  Only the product of h with the kernel is left to do inside the loop. Its derivative runs back over
  time for the gates alone, and then forms dW = sum_t h_{t-1}^T dgates_t as one product of all
  times; the derivative of the loop would read and write all of dW at each. (There is no
  forward-mode derivative.)

  Args:
    gates: [L, B, 4 units], what the inputs give to i, f, g and o.
    kernel: [units, 4 units].

  Returns: the outputs h [L, B, units], in the dtype of the gates, and the state after the last.
  """

  def step(state, inputs):
    state, _ = _cell(inputs, kernel, state)
    return state, state["h"]

  state, outputs = jax.lax.scan(step, state, gates)
  return outputs, state


def _cell(inputs, kernel, state):
  """The next state, and i, f, g, o behind their functions, in the dtype of c."""
  mixed = (inputs + state["h"] @ kernel).astype(state["c"].dtype)
  write, keep, content, read = jnp.split(mixed, 4, -1)
  write, keep, read = jax.nn.sigmoid(write), jax.nn.sigmoid(keep), jax.nn.sigmoid(read)
  content = jnp.tanh(content)
  c = keep * state["c"] + write * content
  return {"h": (read * jnp.tanh(c)).astype(inputs.dtype), "c": c}, (write, keep, content, read)


def _forward(gates, kernel, state):
  def step(before, inputs):
    after, opened = _cell(inputs, kernel, before)
    return after, (after["h"], (before, opened, after["c"]))

  after, (outputs, saved) = jax.lax.scan(step, state, gates)
  return (outputs, after), (kernel, saved)


def _backward(residuals, cotangents):
  kernel, saved = residuals
  d_outputs, d_after = cotangents

  def step(behind, now):
    d_output, (before, (write, keep, content, read), c) = now
    d_h, squashed = (behind["h"] + d_output).astype(c.dtype), jnp.tanh(c)
    d_c = behind["c"] + d_h * read * (1 - squashed**2)
    d_mixed = (
      d_c * content * write * (1 - write),
      d_c * before["c"] * keep * (1 - keep),
      d_c * write * (1 - content**2),
      d_h * squashed * read * (1 - read),
    )
    d_mixed = jnp.concatenate(d_mixed, -1).astype(d_output.dtype)
    return {"h": d_mixed @ kernel.T, "c": d_c * keep}, d_mixed

  d_state, d_gates = jax.lax.scan(step, d_after, (d_outputs, saved), reverse=True)
  wide = saved[-1].dtype
  d_kernel = jnp.einsum("lbu,lbg->ug", saved[0]["h"], d_gates, preferred_element_type=wide)
  return d_gates, d_kernel.astype(kernel.dtype), d_state


recur.defvjp(_forward, _backward)

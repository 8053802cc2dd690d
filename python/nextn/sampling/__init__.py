"""From a row of the target's logits to the next token.

| file | what is in it |
| --- | --- |
| rows.py | arrays: the largest entries, soft-max |
| distribution.py | probabilities of some tokens; drawing one; what is left of p without q |
| chain.py | logits to p: logit_bias, penalties, top_k, typical_p, top_p, min_p, temperature |
| grammar.py | which tokens a GBNF grammar or a JSON schema allows |
| sampler.py | all of it for one request, which remembers the tokens so far |
"""

from nextn.sampling.chain import Chain, Penalties
from nextn.sampling.distribution import Distribution
from nextn.sampling.grammar import Grammar
from nextn.sampling.rows import FloatRow, argmax_rows, softmax, top_positions
from nextn.sampling.sampler import Sampler

__all__ = [
    "Chain",
    "Distribution",
    "FloatRow",
    "Grammar",
    "Penalties",
    "Sampler",
    "argmax_rows",
    "softmax",
    "top_positions",
]

"""Texts of a simulated model whose draft lengths a controller chooses, on a clock of its own."""

from __future__ import annotations

from nextn._core import DraftLength

N_MAX = 8


class Length(DraftLength):
    """With the rounds that its user leaves out."""

    n_rest = 0


class CoolingModel:
    """A model of a few MB, in microseconds: a round takes longer where its length was not used lately.

    Graphs of other lengths leave the caches within 20 ms, and a text begins with none of them there. As measured with
    the bundled model.
    """

    VERIFY = (236, 322, 430, 520, 640, 750, 870, 980, 1080)
    FIRST, FURTHER, ROW = 60, 56, 7

    def __init__(self, rng):
        self.rng, self.time, self.warmth, self.beginning, self.behind = rng, 0.0, {}, 1.0, 0

    def new_text(self):
        self.warmth, self.beginning, self.behind = {}, 1.0, 0

    def spend(self, what, steady, cold):
        used, missing = self.warmth.get(what, (0.0, 1.0))
        missing = 1 - (1 - missing) * 2 ** ((used - self.time) / 20e3)
        taken = steady * (1 + cold * missing) * self.rng.normal(1, 0.02)
        self.time += taken
        self.warmth[what] = self.time, 0.55 * missing
        return taken

    def catch_up(self):
        taken = self.behind * (self.ROW + 1) if self.behind > N_MAX else 0.0
        self.time, self.behind = self.time + taken, 0 if taken else self.behind
        return taken

    def first_step(self):
        behind, self.behind = self.behind, 0
        return self.spend(("draft", behind), self.FIRST + self.ROW * behind, 0.7), behind

    def next_step(self):
        return self.spend(("draft", 0), self.FURTHER, 0.7)

    def verify(self, n_sent):
        taken = self.spend(("verify", n_sent), self.VERIFY[n_sent] * (1 + 0.7 * self.beginning), 0.45)
        self.beginning *= 0.85
        return taken


def time_of_text(model, chances, acceptance, length=None, k=0):
    """Microseconds of a text in which the token at i is accepted if chances[i] is low; k: without length."""
    model.new_text()
    if length:
        length.new_text()
    start, i = model.time, 0
    while i < len(chances):
        n_room, rests, p = len(chances) - i - 1, False, []
        if length and length.n_rest > 0:
            length.n_rest, rests = length.n_rest - 1, True
        n = 0 if rests else min(n_room, length.plan() if length else k)
        if n > 0:
            caught_up = model.catch_up()
            taken, behind = model.first_step()
            p.append(0.9)
            if length:
                length.catching_up_took(caught_up)
                length.first_draft_took(taken, behind)
        while 0 < len(p) < n and (not length or length.go_on(p)):
            taken = model.next_step()
            p.append(0.9)
            if length:
                length.next_draft_took(taken)
        n_sent = length.keep(p) if length and p else len(p)
        n_accepted = 0
        while n_accepted < n_sent and chances[i + n_accepted] < acceptance:
            n_accepted += 1
        taken = model.verify(n_sent)
        if length and not rests:
            length.saw(p, n_sent, n_accepted)
            length.verify_took(n_sent + 1, taken)
            length.n_rest = length.rest()
        model.behind += n_accepted if p else 1
        i += 1 + n_accepted
    return model.time - start


def best_of_fixed(models, texts, acceptance):
    """Microseconds of each text at the length that is best in all of them; models: one for each length from 0."""
    times = [[time_of_text(model, chances, acceptance, k=k) for chances in texts] for k, model in enumerate(models)]
    return min(times, key=sum)

"""A `.pomdp` file read token by token into nested lists, in plain Python: simple, slow, and strict."""

import math

LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
DIGITS = "0123456789"
WORDS = (
    "discount values states actions observations start include exclude T O R uniform identity reset reward cost"
).split()


class WrongFile(Exception):
    """The file does not say a POMDP."""


def expect(condition):
    if not condition:
        raise WrongFile


def tokenize(text):
    tokens = []
    for line in text.split("\n"):
        line = line.split("#")[0].replace(":", " : ").replace("*", " * ")
        words = line.split()
        while words:
            word = words.pop(0)
            if word in ("+", "-") and words and (words[0][0] in DIGITS or words[0][0] == "."):
                word += words.pop(0)
            tokens.append(word)
    return tokens


def is_number(token):
    body = token[1:] if token[:1] in ("+", "-") else token
    mantissa, mark, exponent = body.replace("E", "e").partition("e")
    if mark:
        exponent = exponent[1:] if exponent[:1] in ("+", "-") else exponent
        if not exponent or any(letter not in DIGITS for letter in exponent):
            return False
    whole, _, part = mantissa.partition(".")
    return (whole + part) != "" and all(letter in DIGITS for letter in whole + part) and math.isfinite(float(token))


def is_whole(token):
    return token != "" and all(letter in DIGITS for letter in token)


def is_name(token):
    legal = token[:1] != "" and token[0] in LETTERS and all(c in LETTERS + DIGITS + "-_" for c in token)
    return legal and token not in WORDS


def last_digit(token):
    mantissa, _, exponent = token.lower().partition("e")
    return 0.5 * 10.0 ** (int(exponent or 0) - len(mantissa.partition(".")[2]))


def check_row(pairs):
    """The numbers of a row with a sum of one, of pairs (number, half a unit of its last digit)."""
    total = math.fsum(number for number, _ in pairs)
    count = sum(number > 0 for number, _ in pairs)
    allowed = min(max(sum(unit for number, unit in pairs if number > 0), 2**-21), max(1e-5, count * 5e-7))
    expect(abs(total - 1) <= allowed)
    return [number / total for number, _ in pairs]


class Reader:
    """Tokens and where one stands among them."""

    def __init__(self, text):
        self.tokens, self.at = tokenize(text), 0

    def peek(self, ahead=0):
        return self.tokens[self.at + ahead] if self.at + ahead < len(self.tokens) else ""

    def take(self, wanted=None):
        token = self.peek()
        expect(token != "" and (wanted is None or token == wanted))
        self.at += 1
        return token

    def number(self, probability=False):
        token = self.take()
        expect(is_number(token))
        if probability:
            expect(0 <= float(token) <= 1)
        return float(token), last_digit(token)

    def numbers(self, count, probability=False):
        return [self.number(probability) for _ in range(count)]

    def listed(self):
        self.take(":")
        if is_whole(self.peek()):
            count = int(self.take())
            expect(count > 0)
            return [None] * count
        names = []
        while is_name(self.peek()):
            names.append(self.take())
        expect(names and len(set(names)) == len(names))
        return names

    def place(self, names):
        """The positions that a token stands for."""
        token = self.take()
        if token == "*":
            return range(len(names))
        if is_whole(token):
            expect(int(token) < len(names))
            return [int(token)]
        expect(token in names and is_name(token))
        return [names.index(token)]

    def start(self, states):
        """The start, read once all of the preamble is known."""
        count, kind = len(states), ""
        if self.peek() in ("include", "exclude"):
            kind = self.take()
        self.take(":")
        alone = self.peek(1) in ("", *WORDS)
        if kind or (alone and (is_name(self.peek()) or (is_whole(self.peek()) and count > 1))):
            named = []
            while is_name(self.peek()) or is_whole(self.peek()):
                named += self.place(states)
            expect(named)
            chosen = [(state in named) != (kind == "exclude") for state in range(count)]
            expect(any(chosen))
            return [flag / sum(chosen) for flag in chosen]
        if self.peek() == "uniform":
            self.take()
            return [1 / count] * count
        return check_row(self.numbers(count, probability=True))


def read(text):
    """A file's tables, (S, A, S), (S, A, O), (S, A, S, O), its start, discount and names."""
    reader = Reader(text)
    found, start_at = {}, None
    while reader.peek() not in ("", "T", "O", "R"):
        word = reader.take()
        expect(word not in found and word in WORDS[:6])
        found[word] = None
        if word == "discount":
            reader.take(":")
            found[word] = reader.number()[0]
            expect(0 <= found[word] <= 1)
        elif word == "values":
            reader.take(":")
            found[word] = {"reward": 1, "cost": -1}.get(reader.take())
            expect(found[word])
        elif word == "start":
            start_at = reader.at
            while reader.peek() not in ("", "T", "O", "R", *WORDS[:6]):
                reader.take()
        else:
            found[word] = reader.listed()
    expect(all(word in found for word in WORDS[:5]))
    states, actions, observations = found["states"], found["actions"], found["observations"]
    start = [1 / len(states)] * len(states)
    if start_at is not None:
        here, reader.at = reader.at, start_at
        start = reader.start(states)
        expect(reader.peek() in ("", *WORDS[:6], "T", "O", "R"))
        reader.at = here
    moves = [[[(0.0, 0.0)] * len(states) for _ in actions] for _ in states]
    shows = [[[(0.0, 0.0)] * len(observations) for _ in actions] for _ in states]
    paid = [[[[0.0] * len(observations) for _ in states] for _ in actions] for _ in states]
    while reader.peek():
        word = reader.take()
        expect(word in ("T", "O", "R"))
        reader.take(":")
        if word == "R":
            read_reward(reader, paid, found)
        else:
            read_rows(reader, word, moves if word == "T" else shows, found, start)
    return {
        "transition": [[check_row(row) for row in rows] for rows in moves],
        "observation": [[check_row(row) for row in rows] for rows in shows],
        "reward": [[[[found["values"] * r for r in o] for o in n] for n in a] for a in paid],
        "initial": start,
        "discount": found["discount"],
        "names": [None if names[0] is None else tuple(names) for names in (states, actions, observations)],
    }


def read_rows(reader, word, table, found, start):
    """One statement of T or O, whose table is (state, action, column)."""
    states, columns = found["states"], found["states" if word == "T" else "observations"]
    width = len(columns)
    actions = reader.place(found["actions"])
    if reader.peek() != ":":
        keyword = reader.peek() in (("uniform", "identity", "reset") if word == "T" else ("uniform",))
        if keyword:
            keyword = reader.take()
            same = {"uniform": [(1 / width, 0.0)] * width, "reset": [(p, 0.0) for p in start]}
            unit = [[(float(i == j), 0.0) for j in range(width)] for i in range(len(states))]
            rows = unit if keyword == "identity" else [same[keyword]] * len(states)
        else:
            rows = [reader.numbers(width, probability=True) for _ in states]
        for a in actions:
            for s in range(len(states)):
                table[s][a] = list(rows[s])
        return
    reader.take(":")
    rows = reader.place(states)
    if reader.peek() != ":":
        if reader.peek() == "uniform":
            reader.take()
            row = [(1 / width, 0.0)] * width
        elif word == "T" and reader.peek() == "reset":
            reader.take()
            row = [(p, 0.0) for p in start]
        else:
            row = reader.numbers(width, probability=True)
        for a in actions:
            for s in rows:
                table[s][a] = list(row)
        return
    reader.take(":")
    places = reader.place(columns)
    number = reader.number(probability=True)
    for a in actions:
        for s in rows:
            for place in places:
                table[s][a][place] = number


def read_reward(reader, paid, found):
    """One statement of R."""
    states, observations = range(len(found["states"])), range(len(found["observations"]))
    actions = reader.place(found["actions"])
    reader.take(":")
    rows = reader.place(found["states"])
    following, seen = None, None
    if reader.peek() == ":":
        reader.take()
        following = reader.place(found["states"])
        if reader.peek() == ":":
            reader.take()
            seen = reader.place(found["observations"])
    if seen is not None:
        number = reader.number()[0]
        table = [[number] * len(observations) for _ in states]
    elif following is not None:
        row = [reader.number()[0] for _ in observations]
        table = [row for _ in states]
    else:
        table = [[reader.number()[0] for _ in observations] for _ in states]
    for a in actions:
        for s in rows:
            for n in states if following is None else following:
                for o in observations if seen is None else seen:
                    paid[s][a][n][o] = table[n][o]

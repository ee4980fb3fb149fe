"""Makes tasks with one right answer that is worked out: arithmetic, counting, lists, units and dates.

Every skill is a function that takes only a random generator, and returns a `Draft`.
"""

from __future__ import annotations

from random import Random

from recipes.demo import words
from recipes.demo.drafts import Draft, join, plural, sentence

_UNITS = (
    ("kilometre", "metre", 1000),
    ("kilogram", "gram", 1000),
    ("litre", "millilitre", 1000),
    ("metre", "centimetre", 100),
    ("hour", "minute", 60),
    ("minute", "second", 60),
    ("day", "hour", 24),
    ("week", "day", 7),
    ("year", "month", 12),
    ("dozen eggs", "egg", 12),
)


def arithmetic(rng: Random) -> Draft:
    """Return a task about a sum, a difference or a product of small numbers, with or without the working."""
    return rng.choice((_addition, _subtraction, _product, _bare_sum, _word_problem))(rng)


def _addition(rng: Random) -> Draft:
    """Return a task to add two numbers of two digits, with the working by columns."""
    a, b = rng.randint(11, 89), rng.randint(11, 89)
    ones = a % 10 + b % 10
    carry = " and carry 1" if ones > 9 else ""
    tens = f"{a // 10} + {b // 10}" + (" + 1" if carry else "")
    steps = f"Ones: {a % 10} + {b % 10} = {ones}, so write {ones % 10}{carry}. Tens: {tens} = {(a + b) // 10}."
    ask = rng.choice(
        (
            f"Add {a} and {b} and show each step.",
            f"Work out {a} + {b} step by step.",
            f"Explain how to add {a} and {b} by hand.",
            f"What is the sum of {a} and {b}? Show your working.",
        )
    )
    return Draft(ask, "", f"{steps} So {a} + {b} = {a + b}.", str(a + b))


def _subtraction(rng: Random) -> Draft:
    """Return a task to subtract a number of two digits, tens first and ones after."""
    b = rng.randint(11, 48)
    a = b + rng.randint(5, 50)
    after_tens = a - b // 10 * 10
    steps = f"First take away {b // 10 * 10}: {a} - {b // 10 * 10} = {after_tens}. "
    if b % 10:
        steps += f"Then take away {b % 10}: {after_tens} - {b % 10} = {a - b}. "
    # "Do the subtraction." does not name the numbers, so they are given as the input.
    ask = rng.choice((f"Subtract {b} from {a} in steps.", f"Show how to work out {a} - {b}.", "Do the subtraction."))
    return Draft(ask, "" if str(a) in ask else f"{a} - {b}", f"{steps}So {a} - {b} = {a - b}.", str(a - b))


def _product(rng: Random) -> Draft:
    a, b = rng.randint(11, 49), rng.randint(2, 9)
    tens, ones = a // 10 * 10, a % 10
    steps = f"{a} is {tens} + {ones}. {tens} x {b} = {tens * b} and {ones} x {b} = {ones * b}."
    ask = rng.choice((f"Multiply {a} by {b} and explain.", f"How do you work out {a} x {b}?", "Find the product."))
    given = "" if str(a) in ask else f"{a} x {b}"
    return Draft(ask, given, f"{steps} Together that makes {tens * b} + {ones * b} = {a * b}.", str(a * b))


def _bare_sum(rng: Random) -> Draft:
    a, b = rng.randint(2, 60), rng.randint(2, 39)
    asks = ("Give only the result.", "Calculate. Answer with a number.", "What does this come to? Only the number.")
    return Draft(rng.choice(asks), f"{a} + {b}", str(a + b), str(a + b))


def _word_problem(rng: Random) -> Draft:
    a, b, name = rng.randint(3, 60), rng.randint(2, 39), rng.choice(words.PEOPLE)
    thing = rng.choice(words.NOUNS)
    if rng.random() < 0.5:
        ask = f"{name} has {plural(a, thing)} and buys {b} more. How many does {name} have now?"
        return Draft(ask, "", f"{a} + {b} = {a + b}, so {name} now has {plural(a + b, thing)}.", str(a + b))
    ask = f"{name} had {plural(a + b, thing)} and sold {b} of them. How many are left?"
    return Draft(ask, "", f"{a + b} - {b} = {a}, so {name} has {plural(a, thing)} left.", str(a))


def counting(rng: Random) -> Draft:
    """Return a task to count a letter in a word, answered by spelling the word or by the number alone."""
    word = rng.choice(sum(words.GROUPS.values(), words.LONG_WORDS))
    # Sometimes a letter that may not occur: the answer can be zero.
    letter = rng.choice(word) if rng.random() < 0.85 else rng.choice("aeiost")
    count = word.count(letter)
    times = {0: "not at all", 1: "once", 2: "twice"}.get(count, f"{count} times")
    if rng.random() < 0.3:
        ask = rng.choice(("Count the letter {}. Answer with a number.", "How many times does {} occur? Only a number."))
        return Draft(ask.format(letter), word, str(count), str(count))
    ask = rng.choice(
        (
            f"How many times does the letter {letter} occur in the word {word}?",
            f"Count how often {letter} appears in {word}. Spell the word first.",
            f"Spell {word} and count the letter {letter}.",
            f"Look at the word {word}. How often do you see the letter {letter}?",
        )
    )
    return Draft(ask, "", f"{word} is spelt {'-'.join(word)}. The letter {letter} occurs {times}.", str(count))


def lists(rng: Random) -> Draft:
    """Return a task to sort, reverse or number a list that is given as the input, or to pick an item from it."""
    group = rng.choice(sorted(words.GROUPS))
    items = rng.sample(words.GROUPS[group], rng.randint(3, 8))
    task = rng.randrange(4)
    if task == 0:
        ask = rng.choice(
            ("Sort these {} alphabetically.", "Put the {} in alphabetical order.", "Order the {} from A to Z.")
        )
        answer = ", ".join(sorted(items))
    elif task == 1:
        ask = rng.choice(
            ("Reverse this list of {}.", "Write the {} in reverse order.", "Give the {} from last to first.")
        )
        answer = ", ".join(reversed(items))
    elif task == 2:
        ask = rng.choice(("Turn this list of {} into a numbered list.", "Number the {}, one on each line."))
        answer = "\n".join(f"{n}. {item}" for n, item in enumerate(items, 1))
    else:
        ask = rng.choice(("Which of these {} comes last in the alphabet?", "Name the one of the {} nearest to Z."))
        answer = sentence(max(items))
    return Draft(ask.format(group), ", ".join(items), answer, answer)


def units(rng: Random) -> Draft:
    """Return a task to convert a larger unit into a smaller one."""
    large, small, factor = rng.choice(_UNITS)
    count = rng.randint(2, 60)
    result, given = plural(count * factor, small), plural(count, large)
    unit = "A dozen" if large.startswith("dozen") else f"One {large}"
    why = f"{unit} is {plural(factor, small)}, so {given} is {count} x {factor} = {result}."
    name = rng.choice(words.PEOPLE)
    ask = rng.choice(
        (
            f"Convert {given} into {small}s.",
            f"{name} needs to know how many {small}s there are in {given}. Explain the answer.",
            f"How many {small}s are {given}?",
            f"Express {given} in {small}s and give the reason.",
            f"Help {name} to change {given} into {small}s.",
        )
    )
    if rng.random() < 0.25:
        return Draft(f"Convert to {small}s. Give only the result.", given, result, result)
    return Draft(ask, "", why, result)


def dates(rng: Random) -> Draft:
    """Return a task about days of the week or times of the day, counted forward or back."""
    if rng.random() < 0.35:
        return _arrival(rng)
    start, step, back = rng.randrange(7), rng.randint(2, 20), rng.random() < 0.3
    end = words.DAYS[(start - step if back else start + step) % 7]
    name, where = rng.choice(words.PEOPLE), rng.choice(words.PLACES)
    word = "before" if back else "after"
    ask = rng.choice(
        (
            f"What day of the week is {step} days {word} {words.DAYS[start]}?",
            f"{name} visited {where} on a {words.DAYS[start]}. Which weekday is {step} days {word} that?",
            f"Count {step} days {'back' if back else 'on'} from {words.DAYS[start]}. Which day do you reach?",
        )
    )
    if rng.random() < 0.3:
        return Draft(ask + " Name only the day.", "", end, end)
    # The working counts whole weeks first, then the days that are left.
    weeks, rest = divmod(step, 7)
    path = [words.DAYS[(start + (-d if back else d)) % 7] for d in range(rest + 1)]
    whole = f"{plural(weeks, 'whole week')} {'leads' if weeks == 1 else 'lead'} to {path[0]} again. " if weeks else ""
    steps = f"{sentence(plural(rest, 'day'))} {word} {path[0]}: {', '.join(path[1:])}. " if rest else ""
    return Draft(ask, "", f"{whole}{steps}So it is {end}.", end)


def _arrival(rng: Random) -> Draft:
    """Return a task to find the time of arrival from departure and duration."""
    # The latest arrival is 18:55 + 2:55, so no journey passes midnight.
    hour, minute, length = rng.randint(6, 18), rng.randrange(0, 60, 5), rng.randrange(10, 180, 5)
    hours, minutes = divmod(length, 60)
    parts = [plural(n, unit) for n, unit in ((hours, "hour"), (minutes, "minute")) if n]
    end = f"{(hour * 60 + minute + length) // 60}:{(minute + length) % 60:02d}"
    start, city = f"{hour}:{minute:02d}", rng.choice(words.CITIES)
    split = f"{length} minutes is {join(parts)}. " if hours else ""
    ask = rng.choice(("When does it arrive?", "Work out the time of arrival.", "At what time does the journey end?"))
    trip = rng.choice((f"The train to {city}", f"A bus to {city}", f"The boat for {city}"))
    given = f"{trip} leaves at {start} and takes {length} minutes."
    return Draft(ask, given, f"{split}Starting at {start}, it arrives at {end}.", end)

"""Makes tasks about facts and sentences: geography of an invented world, grammar, extraction and sentiment.

Every skill is a function that takes only a random generator, and returns a `Draft`.
"""

from __future__ import annotations

from random import Random

from recipes.demo import words
from recipes.demo.drafts import Draft, article, join, sentence


def geography(rng: Random) -> Draft:
    """Return a task about countries of the invented world."""
    # Single facts twice, since there are six kinds of them.
    return rng.choice((_fact, _fact, _portrait, _comparison, _journey))(rng)


def _fact(rng: Random) -> Draft:
    """Return a question about one fact of a country."""
    c = rng.choice(words.COUNTRIES)
    asks, answer, full = rng.choice(
        (
            (("What is the capital of {}?", "Name the capital city of {}."), c.capital, "The capital of {} is {}."),
            (("Which river flows through {}?", "Name the main river of {}."), f"the {c.river}", "Through {} flows {}."),
            (("How do people pay in {}?", "What is the coin of {} called?"), f"the {c.coin}", "The coin of {} is {}."),
            (("What do farmers grow in {}?", "Name the chief crop of {}."), c.crop, "The farmers of {} grow {}."),
            (("Which animal stands for {}?", "Name the emblem of {}."), f"the {c.animal}", "The emblem of {} is {}."),
            (("Where does {} lie?", "In which part of the world is {}?"), f"the {c.region}", "{} lies in {}."),
        )
    )
    if rng.random() < 0.4:
        ask = rng.choice((f"{asks[0]} Answer in a word or two.", f"{asks[1]} Be brief."))
        return Draft(ask.format(c.name), "", sentence(answer), answer)
    polite = rng.choice(("", "", "Please tell me: ", "A pupil asks: ", f"{rng.choice(words.PEOPLE)} wants to know: "))
    return Draft(polite + rng.choice(asks).format(c.name), "", full.format(c.name, answer), answer)


def _portrait(rng: Random) -> Draft:
    """Return a task to describe a country."""
    c = rng.choice(words.COUNTRIES)
    facts = [
        f"Its capital is {c.capital}.",
        f"The river {c.river} flows through the country.",
        f"People pay with the {c.coin}.",
        f"The farmers grow {c.crop}.",
        f"The {c.animal} is its emblem.",
    ]
    chosen = rng.sample(facts, rng.randint(3, 5))
    ask = rng.choice(
        ("Describe {} in a few sentences.", "Write a short portrait of {}.", "What should a traveller know about {}?")
    )
    sized = rng.choice(("", " Keep it simple.", " It is for a school book.", " Use plain words."))
    text = f"{c.name} is a country in the {c.region}. {' '.join(chosen)}"
    return Draft(ask.format(c.name) + sized, "", text, c.name)


def _comparison(rng: Random) -> Draft:
    a, b = rng.sample(words.COUNTRIES, 2)
    ask = rng.choice(("Compare {} with {}.", "What is different between {} and {}?", "How do {} and {} differ?"))
    text = (
        f"{a.name} lies in the {a.region} and its capital is {a.capital}, while {b.name} lies in the {b.region} and "
        f"its capital is {b.capital}. In {a.name} people grow {a.crop} and pay with the {a.coin}; in {b.name} they "
        f"grow {b.crop} and pay with the {b.coin}."
    )
    return Draft(ask.format(a.name, b.name), "", text, f"{a.name} {b.name}")


def _journey(rng: Random) -> Draft:
    """Return a task to plan a journey through two to four countries."""
    stops = rng.sample(words.COUNTRIES, rng.randint(2, 4))
    ask = rng.choice(("Plan a journey through these countries.", "Write a travel plan for this route."))
    parts = []
    for day, c in enumerate(stops, 1):
        sight = f"walk along the {c.river}" if (day + len(c.name)) % 2 else f"taste the local {c.crop}"
        parts.append(
            f"Day {day}: arrive in {c.capital}, the capital of {c.name}, change money into the {c.coin} and {sight}."
        )
    route = ", ".join(c.name for c in stops)
    return Draft(ask, route, " ".join(parts), route)


def grammar(rng: Random) -> Draft:
    """Return a task to rewrite a sentence: in the past tense, in the plural, negated, or as a question."""
    verb, actor, noun = rng.choice(words.VERBS), rng.choice(words.ACTORS), rng.choice(words.NOUNS)
    noun, place = f"{rng.choice(words.ADJECTIVES)} {noun}", rng.choice(words.PLACES)
    tail = f"in {place}" if place != "the station" else "at the station"
    given = f"The {actor} {verb.third} the {noun} {tail}."
    asks, answer = rng.choice(
        (
            (
                ("Rewrite in the past tense.", "Say that it happened yesterday."),
                f"The {actor} {verb.past} the {noun} {tail}.",
            ),
            (
                ("Make every person and thing plural.", "Use the plural."),
                f"The {actor}s {verb.base} the {noun}s {tail}.",
            ),
            (("Make the sentence negative.", "Deny this."), f"The {actor} does not {verb.base} the {noun} {tail}."),
            (
                ("Turn this into a question.", "Ask whether it is so."),
                f"Does the {actor} {verb.base} the {noun} {tail}?",
            ),
        )
    )
    return Draft(rng.choice(asks), given, answer, answer)


def extraction(rng: Random) -> Draft:
    """Return a task to extract names, places or a JSON object from a note."""
    people, city, job = rng.sample(words.PEOPLE, 3), rng.choice(words.CITIES), rng.choice(words.JOBS)
    if rng.random() < 0.5:
        age = rng.randint(19, 79)
        given = rng.choice(("{0} is {1} years old, lives in {2} and works as {3}.", "{3} from {2}, aged {1}: {0}."))
        note = sentence(given.format(people[0], age, city, article(job)))
        answer = f'{{"name": "{people[0]}", "age": {age}, "city": "{city}", "job": "{job}"}}'
        ask = rng.choice(("Turn this note into JSON.", "Write the facts as a JSON object.", "Return the data as JSON."))
        return Draft(ask, note, answer, answer)
    topic, day = rng.choice(words.TOPICS), rng.choice(words.DAYS)
    later = f"{people[2]}, {article(job)}, came later."
    note = f"On {day} {people[0]} met {people[1]} in {city} to talk about {topic}. {later}"
    asks, answer = rng.choice(
        (
            (("List the people in this note.", "Who is named here?"), join(people)),
            (("Where did they meet?", "Find the place in this note."), f"They met in {city}."),
            (("What was the meeting about?", "Name the subject of the talk."), f"They talked about {topic}."),
            (("Sum up the note in one line.",), f"{people[0]} and {people[1]} discussed {topic} in {city} on {day}."),
        )
    )
    return Draft(rng.choice(asks), note, answer, answer)


def sentiment(rng: Random) -> Draft:
    """Return a task to judge a review as good, bad or mixed, by the words that it uses."""
    verdict = rng.choice(("good", "bad", "mixed"))
    praise, blame = rng.sample(words.PRAISE, 2), rng.sample(words.BLAME, 2)
    # The words decide, so that the verdict is certain without any knowledge of the world.
    used = {"good": praise, "bad": blame, "mixed": [praise[0], blame[0]]}[verdict]
    first, second = rng.sample(words.REVIEWED, 2)
    given = f"In {rng.choice(words.CITIES)} {first} was {used[0]} and {second} was {used[1]}."
    if rng.random() < 0.3:
        ask = rng.choice(("Is this review good, bad or mixed? One word.", "Judge the review with one word."))
        return Draft(ask, given, sentence(verdict), verdict)
    ask = rng.choice(
        ("Is this review good, bad or mixed? Say why.", "Classify the review with a reason.", "Judge this.")
    )
    kinds = {
        "good": f"both {used[0]} and {used[1]} are words of praise",
        "bad": f"both {used[0]} and {used[1]} are words of blame",
        "mixed": f"{used[0]} is praise but {used[1]} is blame",
    }
    return Draft(ask, given, f"The review is {verdict}, because {kinds[verdict]}.", verdict)

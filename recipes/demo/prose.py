"""Makes tasks with many right responses: stories, letters and recipes, put together from interchangeable sentences.

Every skill is a function that takes only a random generator, and returns a `Draft`. Its answer names what the task asks
for.
"""

from __future__ import annotations

from random import Random

from recipes.demo import words
from recipes.demo.drafts import Draft, article, join, sentence

_OPENINGS = (
    "Once upon a time {a_hero} called {name} lived in the {scene}.",
    "In the {scene} there lived {a_hero} whose name was {name}.",
    "{name} was {a_hero} and had always lived in the {scene}.",
)
_FINDS = (
    "One morning {name} found {a_thing} under a tree.",
    "One rainy evening {name} saw {a_thing} lying in the mud.",
    "While looking for food, {name} came upon {a_thing}.",
)
_QUESTIONS = (
    'Who had lost it? "I will find the owner," said {name}.',
    '"This must belong to somebody," thought {name}.',
    "Nobody in the {scene} had ever seen anything like it.",
)
_SEARCHES = (
    "{name} asked the {friend}, but the {friend} only shook its head.",
    "The {friend} wanted to keep the {thing}, and the two of them began to argue.",
    "Together with the {friend}, {name} searched the whole {scene} until the sun went down.",
)
_TURNS = (
    "At last they met a little girl who was crying, because the {thing} had been a present from her mother.",
    "Then an old man came along the path, looking for the {thing} that he had lost.",
    "In the night a storm came up, and the {thing} was nearly carried away by the water.",
)
_MEETINGS = (
    "On the way {name} met a tired traveller, shared some bread with him and heard about a market in the next town.",
    "The wind grew cold, so they made a small fire and told each other stories until the morning came.",
    "After three days of walking they were hungry, and only a few berries were left in the bag.",
)
_CLOSINGS = (
    "From that day on {name} kept a good watch, and many other lost things were found again.",
    "In the end {name} learned that a thing is worth more when it is shared.",
    "And if you walk through the {scene} today, you may still hear the birds tell the tale.",
)

_REASONS = {
    "thank": (
        "thank {to} for the {gift}",
        "thank you very much for the {gift} that you sent me",
        ("It arrived on {day} and I have used it every day since.", "It was just what I needed in {city}."),
    ),
    "apologise": (
        "apologise to {to} for losing the {gift}",
        "I am very sorry that I lost your {gift}",
        ("I must have left it in {city} on {day}.", "I looked for it everywhere, but it is gone."),
    ),
    "invite": (
        "invite {to} to a party in {city} on {day}",
        "I would like to invite you to my party in {city} on {day}",
        ("We will eat, play music and dance until late.", "You need not bring anything but good humour."),
    ),
    "complain": (
        "complain to {to} about a broken {gift}",
        "the {gift} that I bought from you on {day} is broken",
        ("Please send me a new one or give me my money back.", "I had hoped for better work from your shop in {city}."),
    ),
}
_GREETINGS = ("I hope you are well.", "How are you and your family?", "It has been a long time since we met.", "")
_FAREWELLS = ("Please write back soon.", "I hope to hear from you.", "Give my greetings to everybody at home.", "")

_DISHES = {
    "soup": (
        "Heat some oil in a large pot and fry the {first} in it for {short} minutes.",
        "Add the {rest} with a litre of water and let everything cook for {long} minutes.",
        "Mash the soup if you like it smooth.",
    ),
    "salad": (
        "Put the {first} into a bowl.",
        "Mix in the {rest} and pour oil and a little vinegar over them.",
        "Leave the salad in a cool place for {long} minutes.",
    ),
    "pie": (
        "Make a simple dough of flour, butter and cold water and let it rest for {short} minutes.",
        "Cover it with the {first} and lay the {rest} on top.",
        "Bake the pie in a hot oven for {long} minutes until it is golden.",
    ),
    "stew": (
        "Brown the {first} in butter for {short} minutes.",
        "Stir in the {rest}, cover the pot and keep the heat low for {long} minutes.",
        "Add a spoon of flour if the stew is too thin.",
    ),
}


def story(rng: Random) -> Draft:
    """Return a task to write a story of four to seven parts about an animal that finds something."""
    hero, friend = rng.sample(words.CREATURES, 2)
    thing, scene, name = rng.choice(words.TREASURES), rng.choice(words.SCENES), rng.choice(words.PEOPLE)
    middle = (_QUESTIONS, _SEARCHES, _MEETINGS, _TURNS)
    # The parts in the middle keep their order: a story asks, searches, travels, then turns.
    kept = sorted(rng.sample(range(4), rng.randint(1, 4)))
    parts = [_OPENINGS, _FINDS, *(middle[i] for i in kept), _CLOSINGS]
    text = " ".join(rng.choice(part) for part in parts)
    fields = {"name": name, "a_hero": article(hero), "a_thing": article(thing)}
    text = text.format(**fields, scene=scene, friend=friend, thing=thing)
    length = ("very short story", "short story", "story", "long story")[len(kept) - 1]
    topic = f"{article(hero)} called {name} who finds {article(thing)} in the {scene}"
    if rng.random() < 0.4:
        ask = rng.choice((f"Write a {length} with these words.", f"Use these words in a {length}."))
        return Draft(ask, f"{hero}, {name}, {thing}, {scene}", text, topic)
    ask = rng.choice(
        (f"Write a {length} about {topic}.", f"Tell a {length} about {topic}.", f"Invent a {length}: {topic}.")
    )
    return Draft(ask, "", text, topic)


def letter(rng: Random) -> Draft:
    """Return a task to write a letter that thanks, apologises, invites or complains."""
    sender, to = rng.sample(words.PEOPLE, 2)
    fields = {"gift": rng.choice(words.NOUNS), "city": rng.choice(words.CITIES), "day": rng.choice(words.DAYS)}
    topic, purpose, details = _REASONS[rng.choice(sorted(_REASONS))]
    topic = topic.format(to=to, **fields)
    body = [rng.choice(_GREETINGS), sentence(f"{purpose}.")]
    body += [*rng.sample(details, rng.randint(0, 2)), rng.choice(_FAREWELLS)]
    text = " ".join(part for part in body if part).format(**fields)
    close = rng.choice(("Yours", "Best wishes", "With kind regards"))
    answer = f"{sender} {topic}"
    output = f"Dear {to},\n\n{text}\n\n{close},\n{sender}"
    if rng.random() < 0.4:
        ask = rng.choice(("Write the letter described here.", "Draft a letter from these notes."))
        return Draft(ask, f"From: {sender}. Purpose: {topic}.", output, answer)
    ask = rng.choice((f"Write a letter in which {sender} wants to {topic}.", f"Help {sender} to {topic} in a letter."))
    return Draft(ask, "", output, answer)


def recipe(rng: Random) -> Draft:
    """Return a task to explain how to cook a dish from given ingredients, in prose or in numbered steps."""
    dish = rng.choice(sorted(_DISHES))
    group = "fruits" if dish in ("pie", "salad") and rng.random() < 0.5 else "vegetables"
    # Without nouns in -h, -y and -o, whose plural is not formed by an s alone.
    first, *rest = rng.sample([f"{noun}s" for noun in words.GROUPS[group] if noun[-1] not in "hyo"], rng.randint(3, 4))
    minutes = {"short": rng.randrange(5, 20, 5), "long": rng.randrange(25, 65, 5)}
    wash = f"Wash the {join([first, *rest])} and cut them into small pieces."
    season = "Sprinkle it with sugar" if group == "fruits" else "Season it with salt and pepper"
    steps = [wash, *(s.format(first=first, rest=join(rest), **minutes) for s in _DISHES[dish])]
    steps.append(f"{season} and serve it {'cold' if dish == 'salad' else 'warm'}.")
    numbered = rng.random() < 0.4
    text = "\n".join(f"{n}. {step}" for n, step in enumerate(steps, 1)) if numbered else " ".join(steps)
    how = "in numbered steps" if numbered else rng.choice(("in a few sentences", "for a beginner"))
    answer = f"{dish} {first} {' '.join(rest)}"
    if rng.random() < 0.5:
        ask = rng.choice((f"Write a recipe for a {dish} {how}.", f"Explain {how} how to make a {dish} of these."))
        return Draft(ask, ", ".join([first, *rest]), text, answer)
    ask = rng.choice(
        (
            f"How do I make a {dish} with {join([first, *rest])}? Answer {how}.",
            f"Give me a recipe {how} for a {dish} of {join([first, *rest])}.",
        )
    )
    return Draft(ask, "", text, answer)

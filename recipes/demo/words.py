"""Lists the words of the generated instructions: a small invented world, and everyday words.

All of it was written for this data set. The countries are invented, even if a name looks like that of a real place.
"""

from __future__ import annotations

from typing import NamedTuple


class Country(NamedTuple):
    """One country of the invented world."""

    name: str
    capital: str
    river: str
    region: str
    coin: str
    crop: str
    animal: str


class Verb(NamedTuple):
    """One transitive verb in the three forms that the grammar exercises need."""

    base: str
    third: str
    past: str


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


def _phrases(text: str) -> tuple[str, ...]:
    return tuple(phrase.strip() for phrase in text.split("|"))


_COUNTRIES = _words("""
    Velmora Oskarland Tarnia Quindel Brassa Ilvany Morrow Sedara Pellin Ruthenfel Kastora Ombria Dunmere Farrow Galdia
    Hestavale Jorun Lakmar Nessia Ostralo Penmark Rillia Sorrel Tavaly Ulmar Vestria Wendle Yarrako Zelbia Arnholt
    Belcady Corrin Dravasu Elmsay Fintar Grenova
""")
_CAPITALS = _words("""
    Tarn Bexley Quill Arden Moss Lorne Pike Sandry Hollow Rune Castin Wick Dray Fenwick Garth Hale Jessop Larch Nettle
    Oster Pell Ridge Saffron Tully Umber Vane Willow Yew Zorin Alder Birch Copper Dell Ember Flint Grove
""")
_RIVERS = _words("""
    Aske Brill Cray Dorn Elva Fray Glim Hurst Inver Jade Kell Lune Mira Nore Orla Pim Quay Rill Sark Tamsin Ure Vail
    Wend Yarrow Zell Ambel Burn Clyst Dane Esk Flow Gade Hodder Ivel Kenn Leam
""")
_REGIONS = ("north", "south", "east", "west")
_COINS = ("zin", "crown", "pebble", "mark", "florin", "shell", "tally", "groat")
_CROPS = ("barley", "olives", "rice", "tea", "potatoes", "hops", "plums", "maize", "flax", "rye")
_EMBLEMS = ("otter", "heron", "bear", "fox", "owl", "stag", "hare", "falcon", "wolf", "beaver", "swan")

# Each factor has no divisor in common with the length of its list, so that every value occurs.
COUNTRIES = tuple(
    Country(
        name,
        _CAPITALS[i],
        _RIVERS[i],
        _REGIONS[i * 7 % 4],
        _COINS[i * 5 % 8],
        _CROPS[i * 3 % 10],
        _EMBLEMS[i * 2 % 11],
    )
    for i, name in enumerate(_COUNTRIES)
)
CITIES = tuple(_CAPITALS)

DAYS = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")

PEOPLE = _words("""
    Anna Boris Clara David Elena Felix Greta Hugo Irene Jonas Karin Leo Maria Nils Olga Paul Rosa Simon Tessa Victor
    Wanda Yusuf Zoe Amir Bela Chiara Dana Emil Fatima Goran Hanna Ivan Judith Kofi Lena Marco Nina Oscar Petra Tomas
""")
JOBS = _words("baker carpenter doctor farmer gardener nurse painter pilot plumber sailor tailor teacher")
TOPICS = _phrases("the bridge|the harvest|the new school|the budget|the choir|the market|the old mill|the road")

GROUPS = {
    "fruits": _words("apple apricot banana cherry date fig grape lemon lime mango melon orange peach pear plum quince"),
    "animals": _words("badger cat dog donkey fox goat hare horse lion mouse otter owl rabbit sheep tiger wolf"),
    "colours": _words("amber black blue brown crimson gold green grey indigo orange pink purple red silver white"),
    "tools": _words("axe brush chisel drill file hammer knife ladder pliers rake saw shovel spade trowel wrench"),
    "vegetables": _words("bean beet cabbage carrot leek lettuce marrow onion parsnip pea pepper potato radish turnip"),
    "clothes": _words("belt boot cap coat dress glove hat jacket scarf shirt shoe skirt sock sweater vest"),
}
LONG_WORDS = _words("""
    adventure balloon butterfly calendar committee difference elephant engineer favourite garden happiness important
    kitchen language library mississippi mountain necessary newspaper orchestra parallel pineapple possible professor
    raspberry restaurant strawberry sunflower television tomorrow umbrella vegetable waterfall window yesterday
""")

NOUNS = _words("basket blanket boat bottle bucket candle chair clock drum kite lamp letter mirror map pot ring")
ACTORS = _words("baker boy doctor driver farmer gardener girl nurse pilot pupil sailor singer soldier teacher")
VERBS = tuple(
    Verb(*forms.split("/"))
    for forms in _words("""
    bring/brings/brought build/builds/built buy/buys/bought carry/carries/carried clean/cleans/cleaned draw/draws/drew
    drop/drops/dropped find/finds/found hide/hides/hid hold/holds/held keep/keeps/kept lose/loses/lost move/moves/moved
    open/opens/opened paint/paints/painted push/pushes/pushed see/sees/saw sell/sells/sold take/takes/took
    wash/washes/washed
    """)
)
PLACES = _phrases("the garden|the harbour|the kitchen|the market|the park|the school|the station|the yard")
ADJECTIVES = _words("big broken clean green heavy little new old red round small white")

PRAISE = _words("bright charming clean excellent fine fresh lovely perfect pleasant splendid superb wonderful")
BLAME = _words("awful bleak cold dirty disappointing dreadful dull horrible poor stale terrible ugly")
REVIEWED = _phrases(
    "the room|the soup|the service|the weather|the bread|the garden|the tea|the music|the breakfast|the view"
)

CREATURES = _words("badger bear crow donkey fox frog goat hedgehog heron mouse otter owl rabbit squirrel tortoise")
TREASURES = _phrases("""
    lantern|silver key|torn map|wooden flute|blue stone|golden button|rusty bell|little boat|glass bead|old compass|
    music box|brass ring
""")
SCENES = _phrases("forest|meadow|valley|old mill|harbour|snowy hills|orchard|marsh|quiet village|deep cave")

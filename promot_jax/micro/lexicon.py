"""The words of the world, as data: one place to see and to change what its texts can say."""

# ruff: noqa: SIM905  (word lists are read and changed more easily as one line of words)

# People and the things that a fact can say about them.
NAMES = (
  "Anna Tom Maria Peter Lucy David Emma Oscar Nina Felix Clara Hugo Ruth Simon Alice Victor "
  "Julia Martin Eva Leo Sara Paul Irma Karl Olga Ivan Greta Bruno Dora Erik Flora Gustav"
).split()
CITIES = (
  "Arvel Brenta Corvo Dalmar Estrin Falken Garda Holt Ismer Jarvik Kolm Lorna Mirand Norvik "
  "Ostra Pella"
).split()
COUNTRIES = "Alvaria Borland Cedria Drovia Elvaria Fennia Gorland Hestia".split()
RIVERS = "Anser Bolga Cerna Dusa Elm Fara Gand Hoda".split()
JOBS = (
  "baker doctor teacher pilot farmer painter singer lawyer miner driver writer nurse sailor "
  "tailor barber judge"
).split()
PETS = "dog cat horse bird rabbit snake turtle goat".split()
FOODS = "bread rice soup cheese fish pasta cake honey".split()
INSTRUMENTS = "piano violin guitar flute drum harp trumpet cello".split()
SPORTS = "tennis football golf chess hockey rugby boxing skiing".split()
COLORS = "red blue green yellow black white brown pink".split()
PRODUCTS = "wine glass silk steel salt paper wool coal".split()

# Events: who did what to which thing, where and when.
ACTIONS = {
  "sell": "sold",
  "buy": "bought",
  "find": "found",
  "paint": "painted",
  "break": "broke",
  "clean": "cleaned",
  "open": "opened",
  "lose": "lost",
  "take": "took",
  "bring": "brought",
  "hide": "hid",
  "repair": "repaired",
}
THINGS = "car book lamp chair table clock boat bag coat hat box door phone cup bike desk".split()
ADJECTIVES = "big small dark new red black heavy cheap pretty dirty".split()
PLACES = "park garden street school kitchen market station library hotel church".split()
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()

# Verbs whose complement happened, or did not happen; "never" before them turns both around.
HAPPENED = "managed remembered dared chose hurried learned".split()
NOT_HAPPENED = "failed forgot refused declined hesitated omitted".split()
# The same, so rare that pretraining never met them.
RARE_HAPPENED = "contrived deigned bothered ventured".split()
RARE_NOT_HAPPENED = "neglected forbore scorned disdained".split()

# Verbs of saying and thinking, by what they commit the speaker of the sentence to.
FACTIVE = "knows proves remembers regrets notices".split()
COUNTERFACTIVE = "denies pretends lies imagines dreams".split()
NONCOMMITTAL = "hopes thinks guesses fears expects".split()

# Words with two senses, each sense with the things it is met with.
HOMONYMS = {
  "bank": (("money", "loan", "cash"), ("river", "water", "shore")),
  "bat": (("ball", "game", "player"), ("cave", "wing", "night")),
  "seal": (("letter", "stamp", "wax"), ("ocean", "ice", "whale")),
  "bark": (("tree", "branch", "leaf"), ("puppy", "noise", "howl")),
  "crane": (("builder", "tower", "brick"), ("feather", "nest", "lake")),
  "spring": (("metal", "coil", "mattress"), ("april", "sun", "rain")),
  "match": (("fire", "smoke", "candle"), ("team", "goal", "score")),
  "palm": (("finger", "wrist", "thumb"), ("coconut", "beach", "island")),
  "pitch": (("grass", "stadium", "fence"), ("tone", "song", "melody")),
  "mouse": (("keyboard", "screen", "computer"), ("barn", "trap", "tail")),
}

# Kinds of things, and where each kind is found.
KINDS = {
  "animal": ("dog", "cat", "horse", "rabbit", "goat"),
  "food": ("bread", "rice", "soup", "cheese", "cake"),
  "furniture": ("chair", "table", "desk", "bed", "sofa"),
  "vehicle": ("car", "boat", "bike", "train", "truck"),
  "clothing": ("coat", "hat", "shoe", "glove", "scarf"),
  "instrument": ("piano", "violin", "guitar", "flute", "harp"),
  "tool": ("hammer", "saw", "knife", "drill", "shovel"),
}
FOUND_IN = {
  "animal": "farm",
  "food": "kitchen",
  "furniture": "house",
  "vehicle": "street",
  "clothing": "closet",
  "instrument": "stage",
  "tool": "workshop",
}

# Scenes: living beings with a more general word, and activities that exclude each other.
BEINGS = {
  "man": "a person",
  "woman": "a person",
  "boy": "a child",
  "girl": "a child",
  "dog": "an animal",
  "cat": "an animal",
  "horse": "an animal",
  "bird": "an animal",
}
OPPOSITE_ACTIVITIES = (
  ("sleeping", "running"),
  ("sitting", "walking"),
  ("laughing", "crying"),
  ("eating", "swimming"),
)
UNSTATED_DETAILS = ("with friends", "for money", "before dinner", "after work")

# Instructions.
STEPS = "take clean cut wash open fill heat mix fold cover".split()
MATERIALS = "bowl pan towel bottle box bag cup plate spoon basket".split()
MEANS = "water soap sand oil paper sugar".split()

# One translation table per language: English word -> French, German, Romanian (without accents).
TRANSLATIONS = {
  "dog": ("chien", "hund", "caine"),
  "cat": ("chat", "katze", "pisica"),
  "horse": ("cheval", "pferd", "cal"),
  "bird": ("oiseau", "vogel", "pasare"),
  "man": ("homme", "mann", "barbat"),
  "woman": ("femme", "frau", "femeie"),
  "boy": ("garcon", "junge", "baiat"),
  "girl": ("fille", "maedchen", "fata"),
  "king": ("roi", "koenig", "rege"),
  "farmer": ("fermier", "bauer", "taran"),
  "bread": ("pain", "brot", "paine"),
  "apple": ("pomme", "apfel", "mar"),
  "book": ("livre", "buch", "carte"),
  "car": ("voiture", "auto", "masina"),
  "flower": ("fleur", "blume", "floare"),
  "milk": ("lait", "milch", "lapte"),
  "big": ("grand", "gross", "mare"),
  "small": ("petit", "klein", "mic"),
  "red": ("rouge", "rot", "rosu"),
  "black": ("noir", "schwarz", "negru"),
  "old": ("vieux", "alt", "batran"),
  "young": ("jeune", "jung", "tanar"),
  "good": ("bon", "gut", "bun"),
  "new": ("neuf", "neu", "nou"),
  "sees": ("voit", "sieht", "vede"),
  "eats": ("mange", "isst", "mananca"),
  "buys": ("achete", "kauft", "cumpara"),
  "loves": ("aime", "liebt", "iubeste"),
  "carries": ("porte", "traegt", "poarta"),
  "finds": ("trouve", "findet", "gaseste"),
  "sells": ("vend", "verkauft", "vinde"),
  "paints": ("peint", "malt", "picteaza"),
  "garden": ("jardin", "garten", "gradina"),
  "street": ("rue", "strasse", "strada"),
  "school": ("ecole", "schule", "scoala"),
  "house": ("maison", "haus", "casa"),
  "the": ("le", "der", ""),
  "in": ("dans", "im", "la"),
}
SPOKEN_NOUNS = tuple(TRANSLATIONS)[:16]
SPOKEN_ADJECTIVES = tuple(TRANSLATIONS)[16:24]
SPOKEN_VERBS = tuple(TRANSLATIONS)[24:32]
SPOKEN_PLACES = tuple(TRANSLATIONS)[32:36]

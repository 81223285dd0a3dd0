"""English words of closed classes, by what they tell about the words around them."""

from __future__ import annotations


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


#: Their dot belongs to the name that follows: "St. Bernard", "Mt. Fuji".
ABBREVIATIONS = _words("st dr mr mrs ms mt prof jr sr lt vs")
SINGULAR_DETERMINERS = _words("a an one this that each every another either neither")
#: Determiners that open the object of a verb: "holds a", "wears his".
OBJECT_DETERMINERS = SINGULAR_DETERMINERS | _words(
    "the these those my your his her its our their some many few several various multiple "
    "numerous two three four five six seven eight nine ten eleven twelve"
)
DETERMINERS = OBJECT_DETERMINERS | _words("whose any no all both other more most much dozen")
INTENSIFIERS = _words("very really quite rather extremely too so fairly pretty")

PREPOSITIONS = _words(
    "about above across after against along alongside amid among amongst around as at atop before "
    "behind below beneath beside besides between beyond by down during except for from in inside "
    "into like near of off on onto opposite out outside over past per since through throughout "
    "till to toward towards under underneath until up upon via with within without than"
)
CONJUNCTIONS = _words("and or but nor yet if because while although though when where whether")
ADVERBS = _words(
    "not never always often sometimes usually also just only even still already again now then "
    "here there nearby away together apart forward backward ahead aside everywhere somewhere "
    "nowhere upright indoors outdoors well once twice maybe perhaps however how why please "
    "overhead alone"
)
#: A verb follows these.
SUBJECTS = _words("i you he she we they it who which that")
OBJECT_PRONOUNS = _words(
    "me him us them it mine yours hers ours theirs myself yourself himself herself itself "
    "ourselves themselves someone somebody something anyone anybody anything everyone everybody "
    "everything nobody nothing none others whom what"
)
BE = _words(
    "is are was were am be been being there's it's he's she's that's who's what's i'm they're "
    "we're you're isn't aren't wasn't weren't"
)
HAVE = _words("has have had having hasn't haven't hadn't")
AUXILIARIES = (
    BE
    | HAVE
    | _words(
        "do does did can could will would shall should may might must cannot "
        "don't doesn't didn't can't couldn't won't wouldn't shouldn't seems seem "
        "appears appear becomes become"
    )
)
FUNCTION_WORDS = PREPOSITIONS | CONJUNCTIONS | ADVERBS | SUBJECTS | OBJECT_PRONOUNS | AUXILIARIES

#: Nouns that look like participles: elsewhere "-ing" and "-ed" after a noun mark a verb.
PARTICIPLE_LOOKALIKES = _words(
    "building ceiling clothing painting wedding ring king wing string thing swing spring evening "
    "morning earring railing icing sling awning crossing drawing sibling duckling seedling topping "
    "frosting flooring siding stocking pudding dressing dumpling opening hundred shed sled bed "
    "seed weed reed breed speed moped biped quadruped steed"
)
#: Singular nouns that end like a plural or like a verb of the third person.
PLURAL_LOOKALIKES = _words("lens gas canvas atlas christmas series species news headquarters yes")
PLURALS_WITHOUT_S = _words("people men women children police sheep fish deer mice geese")
#: "-ly" words that are no adverbs.
ADVERB_LOOKALIKES = _words("family butterfly dragonfly jelly belly lily bully ally curly ugly")
#: Adjectives of colour, size, age and state that are no noun of their own.
ADJECTIVES = _words(
    "red green blue yellow black white purple pink brown grey gray golden dark bright big small "
    "large little tiny huge tall short long wide narrow thick thin old young new open closed empty "
    "full wet dry clean dirty hot cold wooden"
)
#: Words of place that name no object by themselves: "on the left", "in the middle of".
PLACES = _words(
    "left right top bottom front back middle center centre side sides end rear edge upper lower "
    "far close next"
)
#: Places that link a noun to what follows: "the cup next to", "the ball left of".
LINKING_PLACES = _words("left right next close far")
#: Verb forms of captions that are hardly ever nouns after another noun.
FINITE_VERBS = _words(
    "sits stands lies holds wears carries eats rides leans hangs sleeps jumps plays looks waits "
    "flies swims runs walks talks contains shows sat stood held wore ate rode hung ran swam flew "
    "lay"
)
#: Participles that take an object and hardly ever name a kind of thing ("playing card").
TRANSITIVE_PARTICIPLES = _words(
    "wearing holding carrying eating watching riding driving using chasing making taking pulling "
    "pushing throwing catching hitting kicking facing"
)
#: Base forms, verbs after a plural only: "people walk", but "a walk", "the bike ride".
BASE_VERBS = _words(
    "sit stand lie hold wear carry eat ride lean hang sleep play look swim run walk contain fly"
)
#: Nouns that no box can be drawn around.
ABSTRACT_NOUNS = _words(
    "image picture photo photograph scene view background foreground front back side top bottom "
    "left right center centre middle corner edge area part piece group variety number pair set lot "
    "type kind style way day night time moment light lighting shadow color colour atmosphere mood "
    "feeling air distance weather position setting appearance detail shape size activity event "
    "action focus surrounding environment row line half rest end direction"
)

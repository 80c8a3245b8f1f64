"""The small closed world behind the procedural pool: plain tables, written for this project.

Everyday facts (opposites, plurals, ...) stand beside invented ones (a language called Velan, countries,
people), so that the invented half cannot have leaked into any pretrained model. Each table maps one key to
its one right answer.
"""

from __future__ import annotations


def _pairs(text: str) -> dict[str, str]:
    """Parse ``"a:b c:d"`` into a dict; an underscore stands for a space."""
    entries = (entry.split(":") for entry in text.split())
    return {key.replace("_", " "): value.replace("_", " ") for key, value in entries}


_OPPOSITE_PAIRS = _pairs("""
    hot:cold big:small tall:short fast:slow light:dark wet:dry full:empty hard:soft open:closed old:new
    rich:poor happy:sad loud:quiet early:late high:low strong:weak thick:thin clean:dirty near:far up:down
    left:right sweet:sour rough:smooth deep:shallow wide:narrow safe:dangerous cheap:expensive
    awake:asleep always:never above:below inside:outside day:night win:lose buy:sell push:pull give:take
    start:finish laugh:cry true:false
""")
OPPOSITES = _OPPOSITE_PAIRS | {b: a for a, b in _OPPOSITE_PAIRS.items()}

PLURALS = _pairs("""
    mouse:mice child:children foot:feet tooth:teeth goose:geese man:men woman:women ox:oxen leaf:leaves
    wolf:wolves knife:knives loaf:loaves shelf:shelves half:halves thief:thieves wife:wives city:cities
    baby:babies lady:ladies berry:berries party:parties box:boxes fox:foxes bus:buses dish:dishes
    church:churches glass:glasses potato:potatoes tomato:tomatoes hero:heroes echo:echoes person:people
    penny:pennies fly:flies story:stories brush:brushes witch:witches dress:dresses match:matches
    watch:watches house:houses tree:trees river:rivers window:windows
""")

_CATEGORY_MEMBERS = {
    "animal": "dog cat horse cow sheep goat pig lion tiger bear",
    "fruit": "apple pear plum cherry lemon grape peach banana",
    "tool": "hammer saw drill wrench chisel pliers rake spade",
    "garment": "shirt coat sock hat scarf glove skirt jacket",
    "vehicle": "car truck train tram boat bike plane van",
    "instrument": "piano violin drum flute guitar trumpet harp cello",
    "metal": "iron gold silver copper tin lead zinc nickel",
    "flower": "rose tulip daisy lily poppy orchid iris lilac",
    "vegetable": "carrot onion cabbage leek turnip pea spinach radish",
    "furniture": "table chair sofa bed desk bench stool cupboard",
}
CATEGORY_MEMBERS = {category: members.split() for category, members in _CATEGORY_MEMBERS.items()}
CATEGORIES = {member: category for category, members in CATEGORY_MEMBERS.items() for member in members}

VELAN = _pairs("""
    dog:barul cat:mishu horse:tarko cow:lomba bird:fenip fish:sholi tree:ondra river:velua sea:marun
    sky:azil sun:koret moon:lunek star:pirit fire:drosh water:wamu stone:gurt house:tebol door:klim
    window:vitra road:sarno bread:pandu milk:leshi salt:zeki apple:jopal honey:mielu king:regno
    friend:amok child:piku mother:nanta father:dorro hand:manik eye:okul head:kapto heart:serdo book:libro
    song:kantu night:nokta day:dirno winter:holod summer:zomer rain:plovi snow:snesh wind:vetro
    cloud:nubek gold:zolar iron:ferum knife:rezak boat:shalup hill:kolmi field:polna bridge:mosta
    town:gradek market:torgi garden:hortu school:uchel table:stolik chair:sedlo bed:krevat lamp:lampun
    rope:vervi
""")

YOUNG = _pairs("""
    dog:puppy cat:kitten cow:calf horse:foal sheep:lamb goat:kid pig:piglet hen:chick duck:duckling
    goose:gosling bear:cub lion:cub wolf:pup deer:fawn frog:tadpole swan:cygnet eagle:eaglet owl:owlet
    hare:leveret kangaroo:joey seal:pup whale:calf fish:fry fox:kit rabbit:bunny eel:elver
    spider:spiderling bee:larva butterfly:caterpillar donkey:foal elephant:calf tiger:cub turkey:poult
    pigeon:squab zebra:foal camel:calf
""")

COLOURS = _pairs("""
    banana:yellow lemon:yellow butter:yellow sunflower:yellow grass:green frog:green emerald:green
    cucumber:green snow:white milk:white salt:white swan:white chalk:white coal:black tar:black crow:black
    raven:black ink:black blood:red tomato:red ruby:red strawberry:red sky:blue sapphire:blue ocean:blue
    carrot:orange pumpkin:orange apricot:orange chocolate:brown mud:brown coffee:brown walnut:brown
    elephant:grey ash:grey mouse:grey flamingo:pink pig:pink plum:purple lavender:purple aubergine:purple
""")

# country -> (capital, currency), all invented
_COUNTRIES = """
    Arvonia:Teslin:dren Belmark:Hollow:crown Cadria:Pell:sol Dorvale:Mirren:tam Estmor:Quill:lek
    Farland:Osk:mark Gastria:Venn:rial Halden:Brask:taler Ilmara:Sorrow:pesk Jorvia:Kettle:dren
    Kelmond:Ashby:florin Lorvane:Dusk:crown Mirelia:Tarn:sol Norvik:Frost:mark Ostrana:Bellow:tam
    Pardova:Lumen:lek Quorin:Hask:rial Ravensk:Coral:taler Selmar:Ember:pesk Tarsis:Willow:florin
    Ulvane:Granit:dren Vestria:Opal:crown Wendland:Marrow:sol Yarrow:Thorn:mark Zelmira:Cinder:tam
    Andorel:Velvet:lek Brionne:Harbor:rial Corvath:Sable:taler Drenmoor:Lantern:pesk Elvaria:Meadow:florin
    Fenwick:Pebble:dren Grendal:Raven:crown Hestia:Copse:sol Istrell:Juniper:mark Jaskara:Saffron:tam
    Korvane:Barrow:lek
"""
CAPITALS = {entry.split(":")[0]: entry.split(":")[1] for entry in _COUNTRIES.split()}
CURRENCIES = {entry.split(":")[0]: entry.split(":")[2] for entry in _COUNTRIES.split()}

ABBREVIATIONS = _pairs("""
    km:kilometre kg:kilogram cm:centimetre mm:millimetre ml:millilitre hr:hour min:minute sec:second
    yr:year wk:week dept:department approx:approximately max:maximum misc:miscellaneous govt:government
    apt:apartment ave:avenue blvd:boulevard st:street rd:road dr:doctor prof:professor capt:captain
    lt:lieutenant jr:junior sr:senior tel:telephone temp:temperature vol:volume fig:figure
    asap:as_soon_as_possible faq:frequently_asked_questions diy:do_it_yourself
    eta:estimated_time_of_arrival tba:to_be_announced fyi:for_your_information etc:and_so_on
    pto:please_turn_over
""")

PAST = _pairs("""
    go:went see:saw eat:ate drink:drank run:ran swim:swam sing:sang write:wrote speak:spoke break:broke
    drive:drove ride:rode rise:rose fall:fell know:knew grow:grew throw:threw fly:flew draw:drew wear:wore
    tear:tore bear:bore bring:brought think:thought catch:caught teach:taught fight:fought find:found
    hold:held sleep:slept keep:kept feel:felt leave:left meet:met send:sent build:built spend:spent
    stand:stood tell:told hear:heard make:made begin:began choose:chose freeze:froze hide:hid bite:bit
    shake:shook forget:forgot
""")

WORKPLACES = _pairs("""
    baker:bakery teacher:school doctor:hospital farmer:farm judge:court pilot:airport sailor:ship
    waiter:restaurant librarian:library miner:mine butcher:shop priest:church banker:bank actor:theatre
    chemist:laboratory brewer:brewery gardener:garden soldier:barracks mechanic:garage painter:studio
    cashier:supermarket astronomer:observatory fisherman:harbour professor:university potter:pottery
    smith:forge winemaker:vineyard clerk:office jockey:stable lifeguard:beach cook:kitchen
    carpenter:workshop nurse:clinic jailer:prison zookeeper:zoo curator:museum
""")

MATERIALS = _pairs("""
    window:glass bottle:glass mirror:glass lens:glass tyre:rubber eraser:rubber balloon:rubber book:paper
    newspaper:paper envelope:paper ticket:paper brick:clay vase:clay teapot:clay tile:clay sweater:wool
    mitten:wool blanket:wool boot:leather saddle:leather belt:leather wallet:leather nail:iron anchor:iron
    chain:iron anvil:iron plank:wood barrel:wood fence:wood ladder:wood candle:wax crayon:wax
    statue:marble pillar:marble ring:gold medal:gold sail:cotton towel:cotton napkin:cotton
""")

TOWNS = _pairs("""
    Abel:Foxton Berta:Millbrook Cyril:Oakham Dora:Redhill Egon:Stowe Fanny:Westby Gus:Hartley
    Hilda:Kirkwall Ivor:Lynford Jutta:Marston Kurt:Norby Lotte:Penrose Milo:Rothwell Nadia:Selby
    Otis:Thirsk Petra:Upton Quentin:Wharram Rosa:Yarm Silas:Alton Tilda:Barnby Ugo:Colne Vera:Dunmore
    Wilma:Elton Xaver:Formby Yvonne:Grimsby Zeno:Hexham Amos:Foxton Bruno:Millbrook Carla:Oakham
    Denis:Redhill Elsa:Stowe Felix:Westby Greta:Hartley Hugo:Kirkwall Irma:Lynford Jonas:Marston
    Karin:Norby Leon:Penrose
""")

DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()

NAMES = "Anna Tom Ben Lucy Max Nina Paul Eva Sam Kate Oscar Jane Peter Clara Simon Maria".split()
OBJECTS = "ball coin key letter map pen cup basket lamp rope candle apple book ring drum hat".split()
WORDS = "red blue green stone river cloud lamp door bread honey window music".split()

_UNITS = """
    zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen
    seventeen eighteen nineteen
""".split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()


def number_word(number: int) -> str:
    """Spell 0..99 in English words, without a hyphen: 42 -> "forty two"."""
    if number < 20:
        return _UNITS[number]
    tens, unit = divmod(number, 10)
    return _TENS[tens - 2] + (f" {_UNITS[unit]}" if unit else "")


def roman(number: int) -> str:
    """Spell 1..89 as a Roman numeral: 42 -> "XLII"."""
    numeral = ""
    for value, letters in ((50, "L"), (40, "XL"), (10, "X"), (9, "IX"), (5, "V"), (4, "IV"), (1, "I")):
        while number >= value:
            numeral, number = numeral + letters, number - value
    return numeral

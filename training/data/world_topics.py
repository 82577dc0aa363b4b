"""The demo world's topic tree, its words and its styles: eight roots of six leaves each."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

ROOTS: dict[str, dict[str, str]] = {
    "Food": {
        "Bread and baking": (
            "sourdough loaf, focaccia, cinnamon rolls, rye crumb, baguettes, brioche, pretzels, "
            "scones, starter jar, oven spring"
        ),
        "Weeknight pasta": (
            "carbonara, gnocchi, lasagne, pesto linguine, ragu, orzo, ravioli, cacio e pepe, "
            "tomato sauce, parmesan"
        ),
        "Garden salads": (
            "grain bowl, fennel slaw, chickpeas, vinaigrette, roasted beets, kale, avocado, "
            "halloumi, tabbouleh, radishes"
        ),
        "Cakes and desserts": (
            "cheesecake, tiramisu, lemon tart, buttercream, brownies, pavlova, panna cotta, layer "
            "cake, macarons, ganache"
        ),
        "Street food": (
            "tacos, dumplings, ramen, bao buns, falafel, empanadas, satay skewers, banh mi, okonomiyaki, kebab"
        ),
        "Coffee and drinks": (
            "espresso, cold brew, matcha latte, pour over, lemonade, spritz, chai, kombucha, iced tea, mocktail"
        ),
    },
    "Home": {
        "Living rooms": (
            "linen sofa, coffee table, floor lamp, gallery wall, rug layering, bookcase, "
            "curtains, armchair, fireplace, side table"
        ),
        "Kitchens": (
            "kitchen island, open shelves, tile backsplash, pantry, butcher block, brass taps, "
            "range hood, cabinets, breakfast nook, sink"
        ),
        "Bedrooms": (
            "headboard, duvet, bedside lamp, wardrobe, canopy bed, pillows, blackout curtains, "
            "bench, quilt, wall panels"
        ),
        "Small spaces": (
            "studio flat, murphy bed, loft ladder, fold out desk, wall hooks, storage stairs, "
            "tiny house, room divider, alcove, nesting tables"
        ),
        "Woodworking": (
            "dovetail joints, walnut bench, lathe bowl, plywood shelf, chisels, workbench, oak "
            "stool, jig, hand plane, cutting board"
        ),
        "Organising": (
            "drawer dividers, label jars, closet system, cable box, baskets, laundry room, "
            "entryway hooks, filing, shoe rack, toy storage"
        ),
    },
    "Garden": {
        "Vegetable beds": (
            "raised beds, tomatoes, squash, compost, seedlings, trellis beans, crop rotation, "
            "carrots, cold frame, mulch"
        ),
        "Houseplants": (
            "monstera, pothos, fern, propagation jar, snake plant, terracotta pots, grow light, "
            "philodendron, macrame hanger, repotting"
        ),
        "Flower borders": (
            "peonies, dahlias, lavender, cottage border, roses, foxgloves, tulip bulbs, "
            "hydrangea, cosmos, cut flowers"
        ),
        "Balcony gardens": (
            "railing planters, herb box, climbing jasmine, vertical garden, bistro set, string "
            "lights, strawberries, dwarf citrus, drip line, window box"
        ),
        "Cacti and succulents": (
            "echeveria, aloe, cactus bowl, string of pearls, agave, gravel bed, jade plant, "
            "haworthia, rock garden, terrarium"
        ),
        "Ponds and wildlife": (
            "water lilies, bee hotel, bird feeder, wildflower meadow, hedgehog house, frog pond, "
            "reeds, butterflies, nest box, log pile"
        ),
    },
    "Travel": {
        "Mountain hikes": (
            "alpine ridge, trail hut, glacier lake, summit, switchbacks, via ferrata, scree, "
            "tarn, sunrise peak, cairn"
        ),
        "City breaks": (
            "old town, rooftop view, tram ride, market hall, museum day, canal walk, cathedral, "
            "metro map, night skyline, square"
        ),
        "Islands and beaches": (
            "turquoise bay, snorkel reef, palm cove, ferry hop, cliff path, lagoon, lighthouse, "
            "hammock, sandbar, tide pools"
        ),
        "Road trips": (
            "camper van, coastal highway, desert road, roadside diner, rooftop tent, scenic "
            "byway, canyon stop, playlist, map pins, gas station"
        ),
        "Train journeys": (
            "sleeper cabin, night train, viaduct, dining car, panorama coach, station clock, rail "
            "pass, window seat, narrow gauge, timetable"
        ),
        "Winter trips": (
            "ski chalet, northern lights, snowshoes, ice hotel, husky sled, hot springs, frozen "
            "lake, christmas market, cross country, cabin"
        ),
    },
    "Fashion": {
        "Capsule wardrobe": (
            "white shirt, trench coat, wool trousers, loafers, cashmere, neutral layers, blazer, "
            "tote, denim, knit vest"
        ),
        "Sewing and patterns": (
            "wrap dress pattern, french seam, linen apron, zipper, bias tape, dress form, "
            "gathers, overlocker, buttonholes, hemming"
        ),
        "Street style": (
            "oversized jacket, cargo trousers, beanie, layering, bomber, corduroy, scarf, bucket "
            "hat, belt bag, graphic tee"
        ),
        "Sneakers": (
            "retro runners, high tops, suede trainers, laces, colourway, court shoes, gum sole, "
            "platform, mesh upper, shoe care"
        ),
        "Jewellery": (
            "signet ring, gold hoops, pearl necklace, charm bracelet, gemstones, ear stack, "
            "pendant, enamel, silver cuff, locket"
        ),
        "Knitting": (
            "cable jumper, sock yarn, fair isle, cardigan, shawl, stitch marker, mittens, wool "
            "skeins, raglan, hand dyed"
        ),
    },
    "Art": {
        "Watercolour": (
            "wet on wet, botanical wash, pigment, cold press paper, loose florals, seascape, "
            "palette, gouache, brush pen, skies"
        ),
        "Ceramics": (
            "wheel throwing, glaze test, mug handle, kiln, raku, pinch pot, sgraffito, stoneware, "
            "vase, porcelain"
        ),
        "Lettering": (
            "brush script, flourish, monogram, serif sketch, chalkboard, nib, gothic hand, "
            "alphabet, envelope art, layout"
        ),
        "Photography": (
            "golden hour, film grain, long exposure, portrait light, street frame, macro, tripod, "
            "darkroom, contact sheet, lens"
        ),
        "Printmaking": (
            "linocut, screen print, etching, block ink, woodcut, riso, brayer, edition, registration, monotype"
        ),
        "Paper craft": (
            "origami crane, paper flowers, collage, bookbinding, pop up card, quilling, envelope, "
            "kirigami, journal, washi tape"
        ),
    },
    "Wellness": {
        "Yoga": (
            "sun salutation, pigeon pose, yoga mat, breathing, vinyasa flow, headstand, balance, "
            "cool down, twist, savasana"
        ),
        "Running": (
            "long run, intervals, trail shoes, marathon plan, tempo, stretching, parkrun, "
            "cadence, hill repeats, race day"
        ),
        "Strength training": (
            "deadlift, kettlebell, pull ups, squat rack, push day, dumbbells, mobility, core "
            "circuit, resistance bands, rest day"
        ),
        "Skin care": (
            "cleanser, serum, sunscreen, night routine, moisturiser, gua sha, toner, clay mask, "
            "retinol, lip balm"
        ),
        "Mindfulness": (
            "morning pages, meditation corner, gratitude list, candle, slow sunday, digital "
            "detox, tea ritual, journal prompts, walk, silence"
        ),
        "Cycling": (
            "gravel bike, road loop, bike packing, saddle bag, commuter, puncture kit, climbing, "
            "bib shorts, touring, velodrome"
        ),
    },
    "Making": {
        "Electronics": (
            "breadboard, soldering, sensor node, led matrix, oscilloscope, synth kit, "
            "microcontroller, weather station, robot arm, circuit"
        ),
        "Desk setups": (
            "standing desk, dual monitor, mechanical keyboard, cable tray, desk mat, monitor arm, "
            "shelf riser, lamp bar, keycaps, headphones"
        ),
        "Parties": (
            "balloon arch, table setting, paper lanterns, birthday banner, place cards, garland, "
            "photo wall, party favours, picnic, confetti"
        ),
        "Kids crafts": (
            "finger paint, salt dough, cardboard castle, felt animals, play kitchen, puppet, "
            "sticker chart, sensory bin, chalk, bead string"
        ),
        "Upcycling": (
            "pallet table, painted dresser, jar lantern, denim patchwork, crate shelf, tin "
            "planters, reupholstery, thrift flip, drum stool, ladder rack"
        ),
        "3D printing": (
            "filament, planter print, cosplay helmet, miniatures, print bed, resin, calibration "
            "cube, gears, lithophane, bracket"
        ),
    },
}
"""Root -> leaf -> the things its pins show."""

STYLES: dict[str, str] = {
    "rustic": "rustic, weathered, farmhouse, earthy",
    "minimal": "minimal, calm, clean, pared back",
    "vintage": "vintage, retro, heirloom, old school",
    "bold": "bold, colourful, vivid, maximal",
    "pastel": "pastel, soft, powdery, airy",
    "dark": "moody, dark, dramatic, midnight",
    "natural": "natural, organic, raw, botanical",
    "modern": "modern, sleek, graphic, geometric",
}
"""Style -> its words. A hidden trait of every pin, and what a user prefers within an interest."""

STYLE_NAMES = tuple(STYLES)


@dataclass(frozen=True)
class TopicTree:
    """The part of the tree that one world uses. Leaves are numbered from 0 inside the simulator.

    Topic ids start at 1: roots first, then leaves.
    """

    roots: tuple[str, ...]
    leaves: tuple[str, ...]
    leaf_root: np.ndarray
    """int16 (L,): root of each leaf, 0-based."""
    words: tuple[tuple[str, ...], ...]
    """What the pins of each leaf show."""

    @classmethod
    def of(cls, leaves_per_root: int) -> TopicTree:
        leaves = [
            (r, name, words)
            for r, root in enumerate(ROOTS.values())
            for name, words in list(root.items())[:leaves_per_root]
        ]
        return cls(
            roots=tuple(ROOTS),
            leaves=tuple(name for _, name, _ in leaves),
            leaf_root=np.array([r for r, _, _ in leaves], dtype=np.int16),
            words=tuple(tuple(w.strip() for w in words.split(",")) for _, _, words in leaves),
        )

    def topic_id(self, leaf: np.ndarray) -> np.ndarray:
        """Topic ids (int64) of leaves; 0 for leaf -1 (none)."""
        leaf = np.asarray(leaf, dtype=np.int64)
        return np.where(leaf >= 0, leaf + len(self.roots) + 1, 0)

    def leaf_of(self, topic_id: np.ndarray) -> np.ndarray:
        """Leaves (int64) of topic ids; -1 for a root or padding."""
        leaf = np.asarray(topic_id, dtype=np.int64) - len(self.roots) - 1
        return np.where((leaf >= 0) & (leaf < len(self.leaves)), leaf, -1)


STYLE_WORDS = tuple(tuple(w.strip() for w in words.split(",")) for words in STYLES.values())

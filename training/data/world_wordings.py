"""What the demo world's searchers call things when they do not use the catalogue's words."""

from __future__ import annotations

WORDINGS: dict[str, tuple[str, str]] = {
    "Bread and baking": (
        "tangy levain boule, olive oil flatbread, sticky swirl buns, dense nordic slices, crusty french "
        "sticks, buttery enriched dough, salted knots, afternoon tea bakes, wild yeast culture, airy "
        "rise",
        "homemade yeast bakes, things to bake from flour, artisan boulangerie, kneading at home",
    ),
    "Weeknight pasta": (
        "creamy egg and bacon spaghetti, potato pillows, layered ricotta casserole, basil noodles, slow "
        "meat bolognese, rice shaped noodles, stuffed parcels, roman cheese spaghetti, marinara, hard "
        "grating cheese",
        "quick italian dinner, noodles after work, trattoria supper, macaroni meals",
    ),
    "Garden salads": (
        "quinoa lunch plate, aniseed coleslaw, garbanzo legumes, oil and vinegar dressing, ruby root "
        "vegetables, leafy winter greens, guacamole fruit, grilled cypriot cheese, parsley bulgur, "
        "peppery pink roots",
        "light vegetarian lunch, crunchy cold dishes, raw veggie plates, healthy leaves",
    ),
    "Cakes and desserts": (
        "cream biscuit slice, mascarpone coffee pudding, citrus curd pastry, whipped icing, fudgy "
        "squares, crisp meringue nest, set vanilla custard, tiered sponge, almond sandwich cookies, "
        "chocolate glaze",
        "sweet treats, patisserie, birthday sugar fix, puddings to impress",
    ),
    "Street food": (
        "mexican corn wraps, chinese steamed pockets, japanese noodle soup, fluffy pork rolls, fried "
        "pulse balls, latin hand pies, peanut grilled sticks, vietnamese baguette, savoury cabbage "
        "pancake, shaved meat wrap",
        "night market bites, hawker stall snacks, kerbside eats, eating on the go",
    ),
    "Coffee and drinks": (
        "short strong shot, slow steeped caffeine, green powder milk, hand filter, citrus cooler, bubbly "
        "aperitif, spiced milky brew, fermented fizzy drink, chilled leaf infusion, alcohol free "
        "highball",
        "barista beverages, thirst quenchers, sips for summer, what to sip",
    ),
    "Living rooms": (
        "flax couch, low central stand, standing light, framed picture display, stacked carpets, novel "
        "storage, window drapes, comfy lounge seat, hearth, small end stand",
        "lounge interiors, where the family sits, sitting area, parlour makeover",
    ),
    "Kitchens": (
        "central counter, exposed crockery ledges, ceramic splash guard, larder, solid wood worktop, "
        "gold mixer faucet, cooker extractor, cupboard doors, morning dining corner, washing up basin",
        "cooking room, where we cook, scullery renovation, culinary space",
    ),
    "Bedrooms": (
        "upholstered board behind mattress, down comforter, night reading light, clothes armoire, four "
        "poster, soft cushions, light blocking drapes, foot of mattress seat, patchwork coverlet, timber "
        "cladding",
        "sleeping quarters, restful night room, boudoir, cosy place to sleep",
    ),
    "Small spaces": (
        "one room apartment, pull down sleeper, mezzanine steps, collapsing work surface, mounted pegs, "
        "drawers under steps, micro home, partition screen, recessed niche, stackable stands",
        "compact living, little apartment, squeezing in more, cramped rooms",
    ),
    "Woodworking": (
        "interlocking corners, dark hardwood seat, turned vessel, sheet timber rack, carving blades, "
        "sturdy maker bench, rustic perch, drilling guide, smoothing tool, chopping slab",
        "carpentry, joinery projects, timber craft, sawdust hobby",
    ),
    "Organising": (
        "cutlery separators, tagged containers, wardrobe compartments, wire tidy, wicker bins, washing "
        "utility area, hallway coat pegs, paperwork folders, footwear stand, plaything tubs",
        "decluttering, tidy home, a place for everything, spring clear out",
    ),
    "Vegetable beds": (
        "wooden grow boxes, vine ripened fruit, courgettes, kitchen scrap heap, baby plants, climbing "
        "pods, yearly planting plan, orange roots, glass frost shelter, straw ground cover",
        "kitchen garden, growing your own, allotment, homegrown produce",
    ),
    "Houseplants": (
        "swiss cheese plant, devils ivy, frondy greenery, rooting cuttings in water, mother in laws "
        "tongue, clay planters, artificial sun lamp, heartleaf climber, knotted hanging cord, moving to "
        "a bigger container",
        "indoor greenery, urban jungle, leafy rooms, foliage inside",
    ),
    "Flower borders": (
        "ruffled spring blooms, late summer tubers, purple scented hedge, english perennial edging, "
        "thorny classics, tall bell spires, dutch spring planting, mophead shrubs, feathery annuals, "
        "stems for the vase",
        "blooming beds, perennial planting, petals all summer, blossom garden",
    ),
    "Balcony gardens": (
        "balustrade boxes, pots of basil and thyme, fragrant white vine, green living wall, small "
        "outdoor table, fairy bulbs, red summer berries, miniature lemon tree, slow watering hose, sill "
        "trough",
        "terrace greenery, patio in the sky, apartment outdoor space, tiny terrace",
    ),
    "Cacti and succulents": (
        "rosette stonecrop, healing gel leaf, prickly dish, trailing bead strands, spiky tequila "
        "rosette, pebble planting, lucky money tree, zebra striped leaf, alpine stones, closed glass "
        "landscape",
        "desert greenery, plants that need no water, spiky collection, drought lovers",
    ),
    "Ponds and wildlife": (
        "floating lotus pads, pollinator shelter, seed station, native flower field, prickly visitor "
        "shelter, amphibian pool, tall waterside grass, winged nectar visitors, robin home, stacked "
        "timber habitat",
        "nature friendly yard, critters welcome, backyard ecology, attracting animals",
    ),
    "Mountain hikes": (
        "high rocky crest, overnight refuge, icy turquoise water, topping out, zigzag path, iron cable "
        "climb, loose stone slope, small upland water, dawn from the top, stacked stone marker",
        "walking in the hills, trekking high up, backpacking peaks, uphill adventure",
    ),
    "City breaks": (
        "historic quarter, panorama from above, streetcar, covered food stalls, gallery afternoon, "
        "waterside stroll, gothic church, underground plan, lights after dark, central plaza",
        "weekend in the capital, urban getaway, sightseeing downtown, short metropolitan trip",
    ),
    "Islands and beaches": (
        "clear blue cove, coral swim, tropical inlet, boat between isles, clifftop walk, sheltered "
        "shallow sea, harbour beacon, swinging net bed, low tide spit, seashore rock basins",
        "seaside holiday, shoreline days, coastal vacation, barefoot escape",
    ),
    "Road trips": (
        "converted motorhome, seaside drive, long empty asphalt, highway burger stop, car top sleeper, "
        "picturesque back lane, gorge viewpoint, songs for driving, plotted stops, fuel stop",
        "driving holiday, journey by car, miles of open highway, van life",
    ),
    "Train journeys": (
        "overnight berth, midnight express, arched railway bridge, restaurant carriage, glass roof "
        "wagon, platform timepiece, unlimited travel ticket, view from the carriage, heritage steam "
        "line, departures board",
        "travel by rail, locomotive holiday, interrail, slow travel on tracks",
    ),
    "Winter trips": (
        "alpine slope lodge, aurora, trekking on powder, igloo stay, dog pulled sledge, thermal pools, "
        "icebound water, advent stalls, nordic skiing, log hut",
        "snow holiday, cold weather getaway, arctic escape, white season travel",
    ),
    "Capsule wardrobe": (
        "crisp button up, belted mac, tailored slacks, slip on leather shoes, soft goat yarn, beige "
        "basics, smart jacket, carryall bag, blue jeans, sleeveless sweater",
        "few good clothes, essentials for work, timeless outfits, fewer better garments",
    ),
    "Sewing and patterns": (
        "tie waist frock template, enclosed edge finish, kitchen pinafore, sliding fastener, curved edge "
        "binding, tailors mannequin, ruffled fullness, serger, shirt fastening slits, finishing the "
        "bottom edge",
        "dressmaking, make your own clothes, needle with thread, haberdashery",
    ),
    "Street style": (
        "boxy coat, utility pants, knitted cap, wearing several pieces, zip aviator, ribbed velvet, neck "
        "wrap, floppy sun brim, waist pouch, printed shirt",
        "urban outfits, fashion week looks, hypebeast, cool city clothes",
    ),
    "Sneakers": (
        "old school joggers, ankle kicks, brushed leather gym shoes, shoestrings, shade combination, "
        "tennis footwear, caramel rubber bottom, chunky heel kicks, breathable fabric top, cleaning your "
        "kicks",
        "trainers collection, athletic footwear, kicks, sporty shoes",
    ),
    "Jewellery": (
        "pinky seal band, round yellow earrings, round white gem strand, trinket wristlet, precious "
        "minerals, several lobe piercings, hanging neck piece, painted glass brooch, sterling bangle, "
        "keepsake photo necklace",
        "bling, trinkets to wear, goldsmith pieces, adornments",
    ),
    "Knitting": (
        "aran sweater, fine foot thread, scottish colourwork, buttoned woolly, lace wrap, row counters, "
        "thumbed hand warmers, twisted hanks, diagonal sleeve seam, artisan coloured thread",
        "needles and wool, purling, cosy handmade woollies, yarn craft",
    ),
    "Watercolour": (
        "soaked bleeding colour, leafy plant study, ground colour powder, textured cotton sheet, free "
        "hand blossoms, ocean scene, mixing tray, opaque water paint, fine tip marker, painted clouds",
        "painting with water, aquarelle, translucent paint, art with washes",
    ),
    "Ceramics": (
        "spinning clay, trial tile colours, cup grip, firing oven, smoked japanese firing, hand pressed "
        "vessel, scratched slip decoration, rugged tableware, flower vessel, fine white china",
        "pottery, working with clay, earthenware, thrown and fired",
    ),
    "Lettering": (
        "flowing ink handwriting, decorative swash, intertwined initials, classic typeface drawing, cafe "
        "menu board, dip pen point, medieval blackletter, a to z, decorated post, page composition",
        "calligraphy, beautiful handwriting, drawn words, typography by hand",
    ),
    "Photography": (
        "sunset glow, analogue noise, silky slow shutter water, window lit faces, candid urban scene, "
        "close up insects, three legged stand, developing room, negatives overview, prime glass",
        "taking pictures, camera tips, snapshots, shutter hobby",
    ),
    "Printmaking": (
        "carved lino, silk mesh stencil, acid bitten copper, rolled relief colour, carved timber relief, "
        "japanese stencil duplicator, rubber roller, numbered copies, aligning layers, one off pull",
        "relief art, pressing ink, graphic art by hand, editions on paper press",
    ),
    "Paper craft": (
        "folded bird, crepe blossoms, cut and glue picture, sewing a notebook, three dimensional "
        "greeting, rolled strips, letter sleeve, japanese cutting, diary pages, decorative sticky strip",
        "folding and cutting, cardstock makes, scrapbooking, scissors and glue",
    ),
    "Yoga": (
        "morning asana sequence, hip opener, rolling exercise rug, pranayama, moving sequence, upside "
        "down posture, standing on one leg, ending stretches, spinal rotation, final relaxation",
        "stretch and breathe, flexible body, asanas, downward dog",
    ),
    "Running": (
        "sunday distance, speed repeats, off road footwear, forty two kilometre schedule, threshold "
        "pace, loosening hamstrings, saturday five kilometres, steps per minute, uphill sprints, "
        "competition morning",
        "jogging, cardio outdoors, getting faster on foot, couch to five k",
    ),
    "Strength training": (
        "barbell lift from floor, cannonball swing, chin bar, leg day cage, chest and triceps, hand "
        "weights, joint flexibility, abs workout, elastic loops, recovery",
        "lifting weights, building muscle, gym workout, bodybuilding",
    ),
    "Skin care": (
        "face wash, vitamin drops, spf, bedtime regimen, hydrating cream, jade stone massage, balancing "
        "water, mud pack, vitamin a, mouth salve",
        "glowing complexion, beauty regimen, clear face, cosmetics for pores",
    ),
    "Mindfulness": (
        "dawn writing, quiet sitting spot, thankfulness notes, scented wax, lazy weekend, offline day, "
        "calming cup, self reflection questions, gentle stroll, stillness",
        "inner calm, self care, less stress, being present",
    ),
    "Cycling": (
        "all terrain two wheeler, tarmac circuit, overnight ride luggage, under seat pouch, ride to "
        "work, flat tyre repair, riding uphill, padded lycra, long distance riding, indoor track",
        "pedalling, two wheels, biking weekend, peloton",
    ),
    "Electronics": (
        "solderless prototype, hot iron joining, iot probe, light panel, signal scope, diy music "
        "machine, arduino, rain and wind gauge, mechanical gripper, wiring diagram",
        "hobby gadgets, maker hardware, tinkering with chips, embedded projects",
    ),
    "Desk setups": (
        "sit stand table, two screens, clicky typing, wire management, large mouse pad, screen mount, "
        "raised ledge, screen light, custom letters, over ear audio",
        "home office, workstation, battlestation, work from home corner",
    ),
    "Parties": (
        "inflated rainbow, plates and napkins, glowing hung globes, happy day sign, guest names, hanging "
        "string decoration, selfie backdrop, goody bags, blanket lunch, paper sprinkles",
        "celebrations, hosting guests, birthday decoration, throwing a bash",
    ),
    "Kids crafts": (
        "messy hand art, bakeable modelling clay, box fortress, soft cloth creatures, pretend cooking, "
        "sock theatre, reward board, touch and feel tub, pavement drawing, threading toys",
        "toddler activities, rainy day with children, preschool fun, keep little ones busy",
    ),
    "Upcycling": (
        "shipping wood furniture, makeover chest of drawers, glass candle holder, jeans quilt, box "
        "bookcase, metal can pots, new chair fabric, charity shop makeover, barrel seat, old steps towel "
        "stand",
        "reuse and repurpose, trash to treasure, old into new, waste nothing",
    ),
    "3D printing": (
        "plastic spool, additive flower pot, costume headgear, tabletop figures, build plate, liquid "
        "photopolymer, test block, cog wheels, backlit photo relief, mounting part",
        "additive manufacturing, fdm projects, plastic prototypes, layer by layer",
    ),
}
"""Leaf -> other words for each of its things, in their order, and for the topic as a whole."""

STYLE_WORDINGS: dict[str, str] = {
    "rustic": "country, cottage, worn, homespun",
    "minimal": "understated, uncluttered, sparse, scandi",
    "vintage": "antique, nostalgic, seventies, grandma",
    "bold": "bright, loud, striking, rainbow",
    "pastel": "pale, dreamy, candy toned, delicate",
    "dark": "gothic, shadowy, black, noir",
    "natural": "earth friendly, untreated, green, wild",
    "modern": "contemporary, futuristic, streamlined, current",
}
"""Style -> other words for it."""

"""Product search over the Complete Journey: queries are product types in plain words, judged by type.

The source has no searches. A query is what a person would call one of its product types: abbreviations
spelled out; remarks in brackets, torn words and words for how the trade sorts things left out. Every product of
the type answers it, and no other is judged. Titles begin with the type as the source writes it, so that words
alone find most of what is spelled alike, and little of what is not.
"""

from __future__ import annotations

import re
from collections import defaultdict

import numpy as np
import pyarrow as pa

from validation.tables import QUERY_JUDGEMENTS

LEAST = 10
"""Products ever bought that a type must have."""
_CUT = 30
"""Letters after which the source cuts a type off; its last word may be half of one."""

_PLAIN = {
    **{"frzn": "frozen", "frz": "frozen", "sft": "soft", "drnk": "drink", "drnks": "drinks", "btl": "bottle"},
    **{
        "jce": "juice",
        "juic": "juice",
        "jui": "juice",
        "chix": "chicken",
        "chick": "chicken",
        "brd": "breaded",
    },
    **{"prep": "prepared", "entrees": "meals", "dnrs": "dinners", "refrig": "refrigerated", "cnd": "canned"},
    **{"hygn": "hygiene", "fem": "feminine", "cntrl": "control", "liqs": "liquids", "liq": "liquid"},
    **{"flvr": "flavour", "flvrd": "flavoured", "flav": "flavoured", "crm": "cream", "crmd": "creamed"},
    **{
        "dogfd": "dog food",
        "catfd": "cat food",
        "seafd": "seafood",
        "coff": "coffee",
        "decaf": "decaffeinated",
    },
    **{"sw": "sweet", "gds": "goods", "sgl": "single", "sngl": "single", "sv": "serve", "srv": "serve"},
    **{"ss": "single serve", "bev": "beverages", "veg": "vegetables", "pkg": "package", "choc": "chocolate"},
    **{"vac": "vacuum", "pac": "packed", "syrp": "syrup", "lozng": "lozenges", "occas": "occasion"},
    **{"analgesics": "pain relief", "isotonic": "sports", "poultry": "chicken and turkey", "wat": "water"},
    **{
        "pourable": "liquid",
        "qsr": "fast food",
        "hosiery": "stockings",
        "iqf": "frozen",
        "rtd": "ready to drink",
    },
    **{"grnd": "ground", "deod": "deodorant", "saus": "sausage", "shlfsh": "shellfish", "frd": "fried"},
    **{"swe": "sweetened", "unsweetened": "without sugar", "incontinence": "bladder protection"},
    **{"sal": "salad", "medicated": "medical", "lunchmeat": "cold cuts", "oriental": "asian"},
}
"""The source's words as people say them."""

_TRADE = """
misc miscellaneous other others all etc ex exc except excp incl including supp fd nos the and or of by in
for non not only basic everyday mainstream premium traditional standard value economy regular reg special
specialty general items products carb under over fre rw s n t o r jhook peg dl h d e b sphe ov bulk bag
exact wt enhanced popular fighting primal select case shop dept promo promotional continuity restricted age
pk pack packs small medium large mixed external internal better you flats blends seasonal collegiate
"""
_NOISE = frozenset(_TRADE.split())
"""Words that sort goods for the trade and name none."""


def query_of(product_type: str) -> str:
    """A product type as a person would search for it; empty where nothing says what it is.

    >>> query_of("SFT DRNK 2 LITER BTL CARB INCL")
    'soft drink liter bottle'
    """
    bare = re.sub(r"\(.*?(\)|$)", " ", product_type.lower())
    if len(product_type) >= _CUT and bare[-1:] != " ":
        bare = bare.rpartition(" ")[0]
    said = [_PLAIN.get(w, w) for w in re.findall(r"[a-z]+", bare) if w not in _NOISE]
    return " ".join(dict.fromkeys(" ".join(said).split()))


def judgements(pin_ids: np.ndarray, product_types: list[str | None]) -> pa.Table:
    """The `query_judgements` of products and their types, (n,) each: relevance 1 for the type's products."""
    pins: dict[str, list[int]] = defaultdict(list)
    texts = {t: query_of(t) for t in set(product_types) if t is not None}
    for pin, product_type in zip(pin_ids.tolist(), product_types, strict=True):
        if product_type is not None and texts[product_type]:
            pins[texts[product_type]].append(pin)
    chosen = sorted(text for text, own in pins.items() if len(own) >= LEAST)
    sizes = [len(pins[text]) for text in chosen]
    return pa.table(
        {
            "query": pa.array(np.repeat(np.array(chosen, dtype=object), sizes), pa.string()),
            "pin_id": pa.array([pin for text in chosen for pin in pins[text]], pa.int64()),
            "relevance": pa.array(np.ones(sum(sizes), np.float32)),
        },
        schema=QUERY_JUDGEMENTS.schema,
    )

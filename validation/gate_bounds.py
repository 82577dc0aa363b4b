"""The bounds that a release is held to (`gates.py`)."""

from __future__ import annotations

from pydantic import Field

from validation.manifest import Frozen


class GateBounds(Frozen):
    """Every bound a release is held to. Defaults suit a data set of any size; set your own per product."""

    min_sample: int = Field(30, ge=1)
    """Fewer users (or rows) than this decide nothing: the gate says so and does not stop the release."""
    surprise: float = Field(0.01, gt=0, lt=1)
    """A recall below its bound fails where, at the bound, so few finds come by chance less often than this."""

    min_recall_over_chance: float = Field(1.5, ge=0)
    """Retrieval recall@100 over that of 100 pins drawn blindly from the catalogue."""
    min_slice_recall_over_chance: float = Field(1.0, ge=0)
    """The same for new users and tail topics."""
    min_ranker_auc: float = Field(0.55, ge=0, le=1)
    min_slice_ranker_auc: float = Field(0.5, ge=0, le=1)
    """The same for new users and for each surface, where they have positives enough."""
    max_normalized_entropy: float = Field(1.0, gt=0)
    """Ranker log loss over that of always predicting the base rate."""
    max_calibration_error: float = Field(0.05, gt=0)
    """Expected calibration error of the ranker, in probability."""
    max_head_calibration_error: float = Field(0.02, gt=0)
    """The same of each of its heads."""
    max_total_calibration_error: float = Field(0.25, gt=0)
    """Sum of a head's probabilities over its positives, less 1, either way."""
    min_head_positives: int = Field(1000, ge=1)
    """A head with fewer decides nothing by its calibration."""

    min_judged_ndcg: float = Field(0.3, ge=0, le=1)
    """NDCG@10 of the query encoder on judged queries; an encoder of content alone reaches twice as much."""
    min_ads_auc: float = Field(0.55, ge=0, le=1)
    """Of clicks on ads; one that orders no better is no reason to charge for them."""
    min_slice_ads_auc: float = Field(0.5, ge=0, le=1)
    """Of every other head, and of each source of ads by itself."""

    max_drift: float = Field(2.5, gt=0)
    """Population stability index of a ranker's feature between its training rows and the newest days.

    Counters over 30 days reach 1.6 while data is younger than that; a feature that broke (a third of it
    missing, another unit) is beyond 2.5."""
    min_drift_rows: int = Field(1000, ge=1)

    margin: float = Field(0.1, ge=0)
    """How much worse than the champion a release may measure, as a share of the champion's value."""
    slice_margin: float = Field(0.2, ge=0)

    min_index_recall: float = Field(0.9, ge=0, le=1)
    min_filtered_recall: float = Field(0.9, ge=0, le=1)
    min_filtered_fill: float = Field(0.99, ge=0, le=1)
    min_coverage: float = Field(0.999, ge=0, le=1)
    """Share of the catalogue's pins with content that the collection holds."""
    max_collection_bytes: float = Field(16e9, gt=0)
    """Raw vector bytes of one collection, rows x dimension x 4."""
    max_model_bytes: float = Field(2e9, gt=0)
    """Weights and configuration of one model version."""

    max_ranker_cpu_ms: float = Field(200.0, gt=0)
    """CPU of ranking 500 candidates of a user with a full history, on the machine that releases."""
    max_network_cpu_ms: float = Field(100.0, gt=0)
    """CPU of one learned retriever reading such a user, of the walk from what such a user did, of the light
    ranker scoring 2,000 candidates, of pricing as many ads as are ever priced, of encoding a query as long as
    one is read, of reading and finding the words of one."""

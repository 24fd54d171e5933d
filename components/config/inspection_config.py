"""The thresholds of the inspection: what counts as a fault. None of them decides what is measured, so another one reads no video again."""

from __future__ import annotations

from dataclasses import dataclass

from components.config.checks import fraction, positive


@dataclass(frozen=True, slots=True, kw_only=True)
class InspectionConfig:
    """Thresholds of the rules beside those of `ValidateConfig`, by family. Shares are 0..1, levels of pictures 0..255, lags frames.

    Time. gap_periods: a step of this many periods is a gap. max_jitter: standard deviation of the periods, of one. max_lag: of the state
    behind the action; max_view_lag: of the pictures behind the state. lag_from_set: difference of an episode's lag from that of most.
    min_agreement: correlation from which a lag is evidence; clear_lag: by how much more it explains than other lags. max_repeats: share of
    steps in which the state stands while the action changes, or in which a row repeats. stuck_frames: the same, as a run.

    Pixels. white_mean: a picture with a higher mean is overexposed. min_spread: one with a smaller deviation is empty. match: a picture
    is another camera's, turned or of another channel order where it is nearer to that by this factor. min_difference: levels by which two
    cameras or orders must differ to be told apart. cut, flash: levels by which a frame differs from its neighbours. min_detail: of most.

    Numbers. unit_ratio: of an episode's size to that of most. max_offset, offset_from_set: of action less state, of the range. max_spike,
    max_jump: of the usual range. coarse: smallest difference, of the range. max_at_limit: share of values at their least or largest.
    quantile_ratio: range over q99 - q01. min_frames: of an episode from which resolution and limits are judged. mode_margin: by which one
    meaning of the action agrees better than the other. action_span: of the action beside that of the state, of what is usual. zero: by
    which a dimension lies elsewhere from some episode on, of its range.

    Meaning. max_still: share of the frames without movement at an end. near: largest distance of two paths, of the range, that makes them
    near duplicates. min_per_task: episodes of a task from which its movements can be compared.
    """

    gap_periods: float = 1.5
    max_jitter: float = 0.1
    max_lag: int = 6
    max_view_lag: int = 4
    lag_from_set: int = 2
    min_agreement: float = 0.6
    clear_lag: float = 0.2
    max_repeats: float = 0.4
    stuck_frames: int = 15
    white_mean: float = 250.0
    min_spread: float = 2.0
    match: float = 0.5
    min_difference: float = 6.0
    cut: float = 15.0
    flash: float = 12.0
    min_detail: float = 0.55
    unit_ratio: float = 8.0
    max_offset: float = 0.06
    offset_from_set: float = 0.08
    max_spike: float = 1.5
    max_jump: float = 0.5
    coarse: float = 0.04
    max_at_limit: float = 0.15
    quantile_ratio: float = 4.0
    min_frames: int = 30
    mode_margin: float = 0.3
    action_span: float = 0.4
    zero: float = 0.2
    max_still: float = 0.25
    near: float = 0.01
    min_per_task: int = 3

    def __post_init__(self) -> None:
        fraction(self, "max_jitter", "min_agreement", "max_repeats", "match", "min_detail", "max_offset", "offset_from_set")
        fraction(self, "coarse", "max_at_limit", "mode_margin", "max_still", "near", "zero")
        positive(self, "gap_periods", "max_lag", "unit_ratio", "max_spike", "quantile_ratio")

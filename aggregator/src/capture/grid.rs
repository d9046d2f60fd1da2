//! The steps of a capture, one after another, and merged on a grid of time.

use lens_hist::Counts;
use lens_hist::block::BlockRef;
use lens_model::{Nanos, SeriesKey, UnixNanos};

use super::{Name, Step};

/// Every step with its name and counts; both were checked when it came.
pub(super) fn counted<'a>(
    names: &'a [Name],
    steps: &'a [Step],
) -> impl Iterator<Item = (&'a Name, &'a Step, BlockRef<'a>)> {
    steps.iter().filter_map(|step| {
        let name = names.get(step.name as usize)?;
        let (block, _) = BlockRef::known(&step.block)?;
        Some((name, step, block))
    })
}

/// The counts of each series, all nodes together, by the cell of a grid that holds the middle of a
/// step: an agent's steps begin when they begin. In order of time, then of series.
///
/// Holds one histogram at a time, however long the capture.
pub(super) fn on_grid<'a>(
    names: &'a [Name],
    steps: &'a [Step],
    width: Nanos,
    mut each: impl FnMut(UnixNanos, &'a SeriesKey, &Counts),
) {
    let cell = |step: &Step| step.start.0.saturating_add(step.duration.0 / 2) / width.0;
    let placed = counted(names, steps).map(|(name, step, block)| (cell(step), &name.key, block));
    let mut placed: Vec<_> = placed.collect();
    placed.sort_by(|(a, one, _), (b, other, _)| (a, one).cmp(&(b, other)));
    let mut counts = Counts::new();
    for of_cell in placed.chunk_by(|(a, one, _), (b, other, _)| (a, one) == (b, other)) {
        let Some((at, key, _)) = of_cell.first() else { continue };
        counts.clear();
        of_cell.iter().for_each(|(.., block)| block.merge_into_dense(&mut counts));
        each(UnixNanos(at * width.0), key, &counts);
    }
}

//! The tree of a `map_reduce`: which outputs each of its tasks reduces. Level and place follow from the task's number, so
//! that the same items are reduced together whatever ends first: tasks 0 to n − 1 map, the next ⌈n/100⌉ are level 1, and
//! so on until one is left.

use std::ops::Range;

use super::Run;
use super::memory::Slot;
use crate::pipeline::definition::{Mode, Stage};
use crate::record::run::{FALLBACK_ITEM, StageHeader};

/// Outputs that one task reduces.
const FAN_IN: u32 = 100;

/// A reducing task.
pub(super) struct Place {
    /// From 1.
    pub level: u32,
    /// In its level, from 0.
    pub n: u32,
    /// The tasks whose outputs it takes.
    pub children: Range<u32>,
}

/// Tasks in all, for so many items.
pub(super) fn tasks(items: u32) -> u32 {
    let (mut all, mut level) = (items, items);
    while level > 0 {
        level = level.div_ceil(FAN_IN);
        all += level;
        if level == 1 {
            break;
        }
    }
    all
}

/// Where a task stands; none if it maps.
pub(super) fn place(mapped: u32, item: u32) -> Option<Place> {
    let (mut from, mut width) = (0, mapped);
    let mut start = mapped;
    for level in 1.. {
        let next = width.div_ceil(FAN_IN);
        if item < start || width == 0 {
            return None;
        }
        if item < start + next {
            let n = item - start;
            let first = from + n * FAN_IN;
            return Some(Place { level, n, children: first..(first + FAN_IN).min(from + width) });
        }
        if next == 1 {
            return None;
        }
        (from, width, start) = (start, next, start + next);
    }
    None
}

/// Items that are mapped.
pub(super) fn mapped(at: &StageHeader) -> u32 {
    at.pieces.last().copied().unwrap_or(0)
}

/// Whether a task of a stage reduces.
pub(super) fn is_reduce(stage: &Stage, at: &StageHeader, item: u32) -> bool {
    matches!(stage.mode, Mode::MapReduce { .. }) && item != FALLBACK_ITEM && item >= mapped(at)
}

/// Whether what a task gives belongs to the output of its stage: of a `map_reduce` the last one alone.
pub(super) fn gives_output(stage: &Stage, at: &StageHeader, item: u32) -> bool {
    !matches!(stage.mode, Mode::MapReduce { .. }) || item == FALLBACK_ITEM || item + 1 == at.total
}

impl Run {
    /// Whether the tasks that a task reduces have ended; those that fail are left out.
    pub(super) fn children_ended(&self, stage: usize, item: u32) -> bool {
        let at = &self.header.stages[stage];
        if !is_reduce(self.definition(stage), at, item) {
            return true;
        }
        let Some(place) = place(mapped(at), item) else { return true };
        let slots = &self.stages[stage].slots;
        place.children.filter(|child| *child >= at.low).all(|child| slots.get((child - at.low) as usize).is_some_and(Slot::ended))
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_task_but_the_last_is_reduced_exactly_once_and_by_a_later_one(mapped in 1u32..30_000) {
            let all = tasks(mapped);
            let mut taken = vec![0u32; all as usize];
            for item in mapped..all {
                let place = place(mapped, item).unwrap();
                prop_assert!(place.children.end <= item && place.children.len() <= FAN_IN as usize && !place.children.is_empty());
                place.children.for_each(|child| taken[child as usize] += 1);
            }
            prop_assert!(taken[..all as usize - 1].iter().all(|times| *times == 1) && taken[all as usize - 1] == 0);
            prop_assert!(place(mapped, mapped - 1).is_none() && place(mapped, all).is_none());
        }
    }

    #[test]
    fn no_item_makes_no_task_and_one_item_is_reduced_alone() {
        assert_eq!((tasks(0), tasks(1), tasks(100), tasks(101), tasks(10_001)), (0, 2, 101, 104, 10_001 + 101 + 2 + 1));
        assert!(place(0, 0).is_none());
    }
}

//! The shape of a pipeline: names, dependencies, cycles, what is upstream of what.

use std::collections::{BTreeMap, BTreeSet};

use crate::diagnostic::{Place, Report};
use crate::fields::shown;
use crate::nearest::suggestion;

/// A stage as far as its dependencies go.
pub(crate) struct Knot {
    pub(crate) name: String,
    pub(crate) place: Place,
    /// As written: `depends_on` and the `stages` of a gather, each with its place. None: not written.
    pub(crate) written: Option<Vec<(String, Place)>>,
    /// Those of them of which only some have ended when this stage starts.
    pub(crate) some_of: Vec<String>,
}

/// What the dependencies come to.
pub(crate) struct Shape {
    /// Per stage, in file order: its direct dependencies.
    pub(crate) depends_on: Vec<Vec<String>>,
    /// None where the dependencies are broken.
    pub(crate) upstream: Option<Upstream>,
}

/// Per stage: all that have ended when it starts, one bit each.
pub(crate) struct Upstream {
    sets: Vec<Vec<u64>>,
}

impl Upstream {
    /// Whether stage `before` has ended when stage `of` starts.
    pub(crate) fn has(&self, of: usize, before: usize) -> bool {
        self.sets[of][before / 64] >> (before % 64) & 1 == 1
    }
}

/// Resolves the dependencies. A stage without any depends on the one above it.
pub(crate) fn shape(report: &mut Report, knots: &[Knot]) -> Shape {
    let mut first: BTreeMap<&str, (usize, Place)> = BTreeMap::new();
    for (index, knot) in knots.iter().enumerate() {
        if let Some((_, earlier)) = first.get(knot.name.as_str()) {
            report.error(knot.place, format!("a second stage is called `{}`", knot.name), format!("the first stands in line {}: rename one", earlier.line));
        } else {
            first.insert(&knot.name, (index, knot.place));
        }
    }
    let mut broken = false;
    let mut depends_on = Vec::with_capacity(knots.len());
    for (index, knot) in knots.iter().enumerate() {
        let mut direct: Vec<String> = Vec::new();
        match &knot.written {
            None => direct.extend(index.checked_sub(1).map(|above| knots[above].name.clone())),
            Some(written) => {
                for (name, place) in written {
                    if !first.contains_key(name.as_str()) {
                        broken = true;
                        let others = first.keys().copied().filter(|other| *other != knot.name);
                        report.error(*place, format!("there is no stage `{}`", shown(name)), suggestion(name, others));
                    } else if !direct.contains(name) {
                        direct.push(name.clone());
                    }
                }
            }
        }
        depends_on.push(direct);
    }
    let edges: Vec<Vec<usize>> =
        depends_on.iter().map(|direct| direct.iter().filter_map(|name| first.get(name.as_str()).map(|(index, _)| *index)).collect()).collect();
    let order = order(&edges);
    if order.len() < knots.len() {
        for ring in rings(&edges, &order) {
            let names: Vec<&str> = ring.iter().chain(ring.first()).map(|index| knots[*index].name.as_str()).collect();
            report.error(knots[ring[0]].place, format!("these stages wait for one another: {}", names.join(" → ")), "take one of them out of a depends_on");
        }
        return Shape { depends_on, upstream: None };
    }
    if broken {
        return Shape { depends_on, upstream: None };
    }
    let mut sets: Vec<Vec<u64>> = vec![vec![0; knots.len().div_ceil(64)]; knots.len()];
    for index in order {
        let mut all = std::mem::take(&mut sets[index]);
        let some = |before: &usize| knots[index].some_of.contains(&knots[*before].name);
        for &before in edges[index].iter().filter(|before| !some(before)) {
            all[before / 64] |= 1 << (before % 64);
            all.iter_mut().zip(&sets[before]).for_each(|(all, more)| *all |= more);
        }
        // Whichever of them ended, what is upstream of all of them has.
        let mut common: Option<Vec<u64>> = None;
        for before in edges[index].iter().filter(|before| some(before)) {
            match &mut common {
                None => common = Some(sets[*before].clone()),
                Some(common) => common.iter_mut().zip(&sets[*before]).for_each(|(common, set)| *common &= set),
            }
        }
        if let Some(common) = common {
            all.iter_mut().zip(&common).for_each(|(all, more)| *all |= more);
        }
        sets[index] = all;
    }
    Shape { depends_on, upstream: Some(Upstream { sets }) }
}

/// The stages that can be put in an order, in that order: dependencies first.
fn order(edges: &[Vec<usize>]) -> Vec<usize> {
    let mut waits: Vec<usize> = edges.iter().map(Vec::len).collect();
    let mut dependants: Vec<Vec<usize>> = vec![Vec::new(); edges.len()];
    for (index, before) in edges.iter().enumerate() {
        before.iter().for_each(|before| dependants[*before].push(index));
    }
    let mut order: Vec<usize> = (0..edges.len()).filter(|index| waits[*index] == 0).collect();
    let mut next = 0;
    while let Some(&index) = order.get(next) {
        next += 1;
        for &dependant in &dependants[index] {
            waits[dependant] -= 1;
            if waits[dependant] == 0 {
                order.push(dependant);
            }
        }
    }
    order
}

/// One ring for each group of stages that wait for one another, each stage in one ring at most.
fn rings(edges: &[Vec<usize>], ordered: &[usize]) -> Vec<Vec<usize>> {
    let mut left: BTreeSet<usize> = (0..edges.len()).filter(|index| !ordered.contains(index)).collect();
    let mut found = Vec::new();
    while let Some(&start) = left.first() {
        // Each stage that is left waits for another that is left, or leads to a ring found before.
        let mut path = vec![start];
        let ring = loop {
            let here = path[path.len() - 1];
            match edges[here].iter().copied().find(|before| left.contains(before)) {
                None => break None,
                Some(before) => match path.iter().position(|seen| *seen == before) {
                    Some(at) => break Some(path[at..].to_vec()),
                    None => path.push(before),
                },
            }
        };
        path.iter().for_each(|index| {
            left.remove(index);
        });
        if let Some(mut ring) = ring {
            // Begin with the one that stands first in the file.
            let least = ring.iter().enumerate().min_by_key(|(_, index)| **index).map_or(0, |(at, _)| at);
            ring.rotate_left(least);
            found.push(ring);
        }
    }
    found
}

//! Which part of a list is wanted, and the next one.

use selvedge_kernel::limit::PAGE;
use selvedge_kernel::time::Millis;

/// Which part of a list is wanted. `K` is what its lines are in order of.
///
/// ```
/// use selvedge_engine::listing::Page;
/// let page: Page<u64> = Page::default();
/// assert_eq!((page.after, page.size), (None, 1_000));
/// ```
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Page<K> {
    /// The last line of the page before; none: from the beginning.
    pub after: Option<K>,
    /// So many lines at most.
    pub size: usize,
}

impl<K> Default for Page<K> {
    fn default() -> Page<K> {
        Page { after: None, size: PAGE }
    }
}

/// The place of a line in a list that begins with the newest.
pub type Newest<I> = (std::cmp::Reverse<Millis>, I);

/// Lines of which the first page is kept, in their order.
pub(crate) struct Kept<'a, T, K, F> {
    page: &'a Page<K>,
    order: F,
    lines: Vec<T>,
}

impl<'a, T, K: Ord, F: Fn(&T) -> K> Kept<'a, T, K, F> {
    pub(crate) fn new(page: &'a Page<K>, order: F) -> Kept<'a, T, K, F> {
        Kept { page, order, lines: Vec::new() }
    }

    /// Takes a line in, if it may stand on this page. At most two pages are in memory.
    pub(crate) fn push(&mut self, line: T) {
        let place = (self.order)(&line);
        if self.page.after.as_ref().is_some_and(|after| place <= *after) {
            return;
        }
        self.lines.push(line);
        if self.lines.len() >= self.page.size.saturating_mul(2).max(2) {
            self.cut();
        }
    }

    fn cut(&mut self) {
        self.lines.sort_by_key(&self.order);
        self.lines.truncate(self.page.size);
    }

    /// The page.
    pub(crate) fn done(mut self) -> Vec<T> {
        self.cut();
        self.lines
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_one_behind_the_other_are_the_whole_list_in_its_order() {
        let all: Vec<u64> = (0..100).map(|n| n * 37 % 100).collect();
        for size in [1, 2, 7, 100, 200] {
            let (mut met, mut after) = (Vec::new(), None);
            loop {
                let page = Page { after, size };
                let mut kept = Kept::new(&page, |line: &u64| *line);
                all.iter().for_each(|line| kept.push(*line));
                let lines = kept.done();
                after = lines.last().copied();
                if lines.is_empty() {
                    break;
                }
                met.extend(lines);
            }
            assert_eq!(met, (0..100).collect::<Vec<u64>>(), "{size}");
        }
    }
}

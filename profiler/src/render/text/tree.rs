//! Sums over a hierarchy of labels: process, thread, module, symbol, in any selection and that order.

use std::collections::HashMap;

use super::sections::Level;
use crate::{
    model::Frame,
    render::{
        RenderOptions,
        tally::{Cell, Domain, Tally, no_stack_label, process_label, thread_label},
    },
};

/// A label's sum, and what it consists of.
#[derive(Debug, Default)]
pub struct Node {
    /// Name.
    pub label: String,
    /// Sum.
    pub value: i64,
    /// Its parts in kernel, user, shared and other code.
    pub split: [i64; 4],
    /// Next level, largest first.
    pub children: Vec<Node>,
}

/// Labels of a report, each looked up once per thread, module and function.
pub struct Labels<'a> {
    tally: &'a Tally<'a>,
    processes: Vec<String>,
    threads: Vec<String>,
}

impl<'a> Labels<'a> {
    /// The labels that the options ask for.
    pub fn new(tally: &'a Tally<'a>, options: &RenderOptions) -> Self {
        let profile = tally.profile;
        let ids = || (0..profile.threads.len() as u32).map(crate::model::ThreadId);
        let merge = options.merge_by_name;
        Self {
            tally,
            processes: ids().map(|id| process_label(profile, id, merge)).collect(),
            threads: ids().map(|id| thread_label(profile, id, merge)).collect(),
        }
    }

    fn label(&self, level: Level, cell: &Cell, leaf: Option<&Frame<'a>>) -> &str {
        let profile = self.tally.profile;
        match (level, leaf) {
            (Level::Process, _) => &self.processes[cell.thread.index()],
            (Level::Thread, _) => &self.threads[cell.thread.index()],
            (Level::Module, Some(leaf)) => &leaf.module.path,
            (Level::Symbol, Some(leaf)) => &leaf.function.name,
            (Level::Module | Level::Symbol, None) => no_stack_label(profile.stacks[cell.stack.index()].end),
        }
    }

    /// The sums for these levels, the root's label being empty.
    pub fn tree(&self, levels: &[Level]) -> Node {
        // Nodes by index first: (parent, label) to node.
        let mut index: HashMap<(usize, &str), usize> = HashMap::new();
        let mut nodes = vec![(0, Node::default())];
        for cell in &self.tally.cells {
            let leaf = self.tally.profile.frames(cell.stack).next();
            let domain = Domain::of(leaf.as_ref()) as usize;
            let mut at = 0;
            add(&mut nodes[0].1, cell.value, domain);
            for &level in levels {
                let label = self.label(level, cell, leaf.as_ref());
                let next = nodes.len();
                let child = *index.entry((at, label)).or_insert(next);
                if child == next {
                    nodes.push((at, Node { label: label.to_owned(), ..Node::default() }));
                }
                at = child;
                add(&mut nodes[at].1, cell.value, domain);
            }
        }
        // Children come behind their parents, so that from the end each is complete when it moves into its parent.
        while nodes.len() > 1 {
            let Some((parent, node)) = nodes.pop() else { break };
            nodes[parent].1.children.push(sorted(node));
        }
        nodes.pop().map(|(_, root)| sorted(root)).unwrap_or_default()
    }
}

fn add(node: &mut Node, value: i64, domain: usize) {
    node.value = node.value.saturating_add(value);
    node.split[domain] = node.split[domain].saturating_add(value);
}

fn sorted(mut node: Node) -> Node {
    node.children.sort_unstable_by(|a, b| b.value.cmp(&a.value).then_with(|| a.label.cmp(&b.label)));
    node
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::render::{SECTIONS, fixture};

    /// Every node is the sum of its children, and its split adds up to it.
    fn is_consistent(node: &Node) -> bool {
        let children: i64 = node.children.iter().map(|child| child.value).sum();
        node.split.iter().sum::<i64>() == node.value
            && (node.children.is_empty() || children == node.value)
            && node.children.iter().all(is_consistent)
    }

    #[test]
    fn largest_first_then_by_name() {
        let profile = fixture::mixed();
        let tally = Tally::new(&profile, &RenderOptions::default()).unwrap();
        let root = Labels::new(&tally, &RenderOptions::default()).tree(&[Level::Process]);
        let lines: Vec<_> = root.children.iter().map(|n| (n.label.as_str(), n.value, n.split)).collect();
        assert_eq!(lines[1], ("crunch (100)", 413, [60, 300, 53, 0]));
        assert_eq!(
            lines[2..5].iter().map(|l| l.0).collect::<Vec<_>>(),
            ["date (200)", "date (201)", "date (202)"]
        );
    }

    proptest! {
        #[test]
        fn nothing_is_lost_in_any_section(profile in fixture::profiles(), merge_by_name: bool) {
            let options = RenderOptions { merge_by_name, ..RenderOptions::default() };
            let tally = Tally::new(&profile, &options).unwrap();
            let labels = Labels::new(&tally, &options);
            for section in SECTIONS {
                let root = labels.tree(section.levels());
                prop_assert_eq!(root.value, tally.total);
                prop_assert!(is_consistent(&root));
            }
        }
    }
}

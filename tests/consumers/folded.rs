//! Folded stacks: one line per stack, as flamegraph tools read them.

use std::collections::BTreeMap;

use profiler_tests::view::View;

use crate::tools::recording;

fn folded() -> String {
    String::from_utf8(recording().output("out.folded")).expect("folded stacks are UTF-8")
}

#[test]
fn each_line_is_a_stack_and_its_count() {
    let profile = recording().succeeded();
    let mut total = 0;
    let mut seen = BTreeMap::new();
    for line in folded().lines() {
        let (stack, count) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no count: {line}"));
        let count: u64 = count.parse().unwrap_or_else(|e| panic!("{line}: {e}"));
        assert!(count > 0, "{line}");
        assert!(seen.insert(stack.to_owned(), count).is_none(), "twice: {stack}");
        assert!(stack.split(';').all(|frame| !frame.trim().is_empty()), "an empty frame: {line}");
        total += count;
    }
    assert_eq!(total, View::of(&profile).total());
    let work: u64 = seen
        .iter()
        .filter(|(stack, _)| stack.contains("split::work(unsigned long)"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(work, View::of(&profile).with("split::work(unsigned long)"));
}

#[test]
fn inferno_draws_it() {
    let text = folded();
    let mut svg = Vec::new();
    let mut options = inferno::flamegraph::Options::default();
    inferno::flamegraph::from_lines(&mut options, text.lines(), &mut svg).unwrap();
    let svg = String::from_utf8(svg).unwrap();
    for name in ["split::work(unsigned long)", "inline_leaf", "thread_beta_work"] {
        let escaped = name.replace('<', "&lt;").replace('>', "&gt;");
        assert!(svg.contains(&escaped), "{name}");
    }
    assert!(!svg.contains("malformed"), "inferno skipped lines");
}

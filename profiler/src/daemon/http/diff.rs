//! What two ranges differ in, by stack (folded) and by function (JSON).

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use serde_json::{Value, json};

/// Most functions of the JSON.
const MAX_ROWS: usize = 1000;

/// Lines `stack BASE NEW`, for `difffolded` readers (inferno, FlameGraph).
pub fn folded(base: &[u8], new: &[u8]) -> Vec<u8> {
    let mut both: BTreeMap<&str, (u64, u64)> = BTreeMap::new();
    for (stack, value) in lines(base) {
        both.entry(stack).or_default().0 += value;
    }
    for (stack, value) in lines(new) {
        both.entry(stack).or_default().1 += value;
    }
    let text: String =
        both.into_iter().map(|(stack, (base, new))| format!("{stack} {base} {new}\n")).collect();
    text.into_bytes()
}

/// Functions with their values in both, what differs most first; schema `profiler.diff/1`.
pub fn json(base: &[u8], new: &[u8]) -> Vec<u8> {
    let (base, new) = (functions(base), functions(new));
    let names: BTreeSet<&str> = base.rows.keys().chain(new.rows.keys()).copied().collect();
    let of = |side: &Functions<'_>, name: &str| side.rows.get(name).copied().unwrap_or_default();
    let mut rows: Vec<_> = names.iter().map(|name| (*name, of(&base, name), of(&new, name))).collect();
    rows.sort_by_key(|(_, base, new)| Reverse((base.own.abs_diff(new.own), base.total.abs_diff(new.total))));
    let left_out = rows.len().saturating_sub(MAX_ROWS);
    let rows: Vec<Value> = rows
        .iter()
        .take(MAX_ROWS)
        .map(|(name, base, new)| {
            json!({
                "function": name,
                "base_self": base.own, "self": new.own, "self_difference": i128::from(new.own) - i128::from(base.own),
                "base_total": base.total, "total": new.total,
                "total_difference": i128::from(new.total) - i128::from(base.total),
            })
        })
        .collect();
    let document = json!({
        "schema": "profiler.diff/1",
        "base": base.sum,
        "new": new.sum,
        "left_out": left_out,
        "rows": rows,
    });
    document.to_string().into_bytes()
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Row {
    own: u64,
    total: u64,
}

#[derive(Debug, Default)]
struct Functions<'a> {
    rows: BTreeMap<&'a str, Row>,
    sum: u64,
}

fn functions(text: &[u8]) -> Functions<'_> {
    let mut functions = Functions::default();
    for (stack, value) in lines(text) {
        functions.sum = functions.sum.saturating_add(value);
        let frames: Vec<&str> = stack.split(';').collect();
        if let Some(leaf) = frames.last() {
            let row = functions.rows.entry(leaf).or_default();
            row.own = row.own.saturating_add(value);
        }
        for name in frames.into_iter().collect::<BTreeSet<_>>() {
            let row = functions.rows.entry(name).or_default();
            row.total = row.total.saturating_add(value);
        }
    }
    functions
}

/// Folded lines: a stack and its value behind the last blank.
fn lines(text: &[u8]) -> impl Iterator<Item = (&str, u64)> {
    let text = str::from_utf8(text).unwrap_or_default();
    text.lines().filter_map(|line| {
        let (stack, value) = line.rsplit_once(' ')?;
        Some((stack, value.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const BASE: &[u8] = b"p;main;f 10\np;main;g h 5\n";
    const NEW: &[u8] = b"p;main;f 4\np;main;k 7\n";

    #[test]
    fn stacks_of_both() {
        assert_eq!(
            String::from_utf8(folded(BASE, NEW)).unwrap(),
            "p;main;f 10 4\np;main;g h 5 0\np;main;k 0 7\n"
        );
    }

    #[test]
    fn functions_by_difference() {
        let document: Value = serde_json::from_slice(&json(BASE, NEW)).unwrap();
        assert_eq!((&document["base"], &document["new"]), (&json!(15), &json!(11)));
        let rows: Vec<_> = document["rows"]
            .as_array()
            .unwrap()
            .iter()
            .map(|row| {
                (
                    row["function"].as_str().unwrap(),
                    row["self_difference"].as_i64().unwrap(),
                    row["total_difference"].as_i64().unwrap(),
                )
            })
            .collect();
        assert_eq!(rows, [("k", 7, 7), ("f", -6, -6), ("g h", -5, -5), ("main", 0, -4), ("p", 0, -4)]);
    }
}

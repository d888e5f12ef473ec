//! Names that are near to one that is not there.

/// Most names that are told.
const MOST: usize = 6;

/// Those of `known` that are nearest to a name: that contain it or are contained in it, or differ in few characters; the
/// nearest first.
pub fn near<'a>(name: &str, known: impl IntoIterator<Item = &'a str>) -> Vec<&'a str> {
    let mut found: Vec<(usize, &str)> = known
        .into_iter()
        .filter_map(|other| {
            let distance = distance(name, other)?;
            let contains =
                !name.is_empty() && (other.contains(name) || (other.len() > 3 && name.contains(other)));
            (contains || distance <= 1 + name.len().min(other.len()) / 4).then_some((distance, other))
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, name)| name).take(MOST).collect()
}

/// Characters that have to be put in, left out or replaced to make one name of the other; `None` for names longer than any
/// that is meant.
fn distance(a: &str, b: &str) -> Option<usize> {
    const LONGEST: usize = 512;
    if a.len() > LONGEST || b.len() > LONGEST {
        return None;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, &to) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row.last().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances_are_edits() {
        assert_eq!(distance("", "abc"), Some(3));
        assert_eq!(distance("kitten", "sitting"), Some(3));
        assert_eq!(distance("same", "same"), Some(0));
        assert_eq!(distance(&"x".repeat(1000), "x"), None);
    }

    #[test]
    fn the_nearest_come_first() {
        let known =
            ["sched_switch", "sched_process_fork", "sched_process_exec", "sched_process_exit", "sys_enter"];
        assert_eq!(near("sched_proces_fork", known)[0], "sched_process_fork");
        assert_eq!(near("fork", known), ["sched_process_fork"]);
        assert_eq!(near("zzz", known), [""; 0]);
        assert_eq!(near("", known), [""; 0]);
    }
}

//! Numbers by name, small: for the many rows of a table of which each has few.

use serde::{Serialize, Serializer};

/// Numbers by name, in the order that they were given in. A map in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Named(Box<[(&'static str, u64)]>);

impl Named {
    /// The number of that name.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.iter().find(|(other, _)| *other == name).map(|(_, number)| number)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.0.iter().copied()
    }
}

impl FromIterator<(&'static str, u64)> for Named {
    fn from_iter<I: IntoIterator<Item = (&'static str, u64)>>(numbers: I) -> Self {
        Self(numbers.into_iter().collect())
    }
}

impl Serialize for Named {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.iter())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_found_and_are_a_map() {
        let named: Named = [("b", 2), ("a", 1)].into_iter().collect();
        assert_eq!((named.get("a"), named.get("c")), (Some(1), None));
        assert_eq!(serde_json::to_string(&named).unwrap(), r#"{"b":2,"a":1}"#);
    }
}

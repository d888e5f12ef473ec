//! The distinct rules of a table, numbered in the order in which they were first seen.

use std::collections::HashMap;

use profiler_common::unwind::rule::Rule;

/// Most rules of a table: their numbers have 16 bits.
pub const MAX_RULES: usize = 1 << 16;

/// Number of [`Rule::NONE`] in every table.
pub const NONE: u16 = 0;
/// Number of [`Rule::UNSUPPORTED`] in every table.
pub const UNSUPPORTED: u16 = 1;

/// Distinct rules and their numbers.
#[derive(Debug)]
pub struct Rules {
    list: Vec<u64>,
    numbers: HashMap<u64, u16>,
    /// Neighbouring rows often share a rule.
    last: (Rule, u16),
}

impl Default for Rules {
    fn default() -> Self {
        let list = vec![Rule::NONE.0, Rule::UNSUPPORTED.0];
        let numbers = HashMap::from([(Rule::NONE.0, NONE), (Rule::UNSUPPORTED.0, UNSUPPORTED)]);
        Self { list, numbers, last: (Rule::NONE, NONE) }
    }
}

impl Rules {
    /// The number of a rule; `None` if there is no number left for it.
    pub fn number(&mut self, rule: Rule) -> Option<u16> {
        if self.last.0 == rule {
            return Some(self.last.1);
        }
        let number = match self.numbers.get(&rule.0) {
            Some(&number) => number,
            None => {
                let number = u16::try_from(self.list.len()).ok()?;
                self.list.push(rule.0);
                self.numbers.insert(rule.0, number);
                number
            }
        };
        self.last = (rule, number);
        Some(number)
    }

    /// The rules by number.
    pub fn list(&self) -> &[u64] {
        &self.list
    }

    /// The rules by number, at most [`MAX_RULES`].
    pub fn into_list(self) -> Vec<u64> {
        self.list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_keeps_its_number_until_there_are_none_left() {
        let mut rules = Rules::default();
        assert_eq!(rules.number(Rule::UNSUPPORTED), Some(UNSUPPORTED));
        for n in 0..MAX_RULES as u64 - 2 {
            assert_eq!(rules.number(Rule(n << 8 | 1)), Some(n as u16 + 2));
        }
        assert_eq!(rules.number(Rule(u64::MAX)), None);
        assert_eq!(rules.number(Rule(1)), Some(2));
        assert_eq!(rules.into_list().len(), MAX_RULES);
    }
}

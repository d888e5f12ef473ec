//! Parameters of a query: known ones, each once, bounded.

use std::time::Duration;

use axum::{extract::Query, http::Uri};
use regex::{Regex, RegexBuilder};

use super::answer::Problem;
use crate::{
    model::{
        name::clean,
        when::{self, When},
    },
    store::Range,
};

/// The range that is meant if nothing is said, as of `profiler query`.
const DEFAULT_SPAN: Duration = Duration::from_secs(900);

/// Longest pattern, bytes.
const MAX_PATTERN: usize = 256;

/// Largest pattern when it is compiled, bytes.
const MAX_COMPILED: usize = 1 << 20;

/// Most values of a parameter that can be given several times.
const MAX_VALUES: usize = 32;

/// The parameters of a request.
#[derive(Debug)]
pub struct Params(Vec<(String, String)>);

impl Params {
    /// Those of a query; only the known ones, each once but `event`.
    pub fn read(uri: &Uri, known: &[&str]) -> Result<Self, Problem> {
        let Query(pairs) = Query::<Vec<(String, String)>>::try_from_uri(uri)
            .map_err(|error| Problem::request(error.body_text()))?;
        for (at, (name, _)) in pairs.iter().enumerate() {
            if !known.contains(&name.as_str()) {
                let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
                let name = clean(name.as_bytes());
                return Err(Problem::request(format!(
                    "there is no parameter `{name}` here; there are: {known}"
                )));
            }
            let given = pairs[..at].iter().filter(|(other, _)| other == name).count();
            if given >= if name == "event" { MAX_VALUES } else { 1 } {
                return Err(Problem::request(format!("`{name}` is given too often")));
            }
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// All values of a parameter.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A number in that range.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let (least, most) = (range.start(), range.end());
        text.parse().ok().filter(|number| range.contains(number)).map(Some).ok_or_else(|| {
            Problem::request(format!("`{name}` must be a whole number from {least} to {most}"))
        })
    }

    /// A process id.
    pub fn pid(&self) -> Result<Option<u32>, Problem> {
        // PID_MAX_LIMIT of Linux is 2^22.
        Ok(self.number("pid", 1..=1 << 22)?.and_then(|pid| u32::try_from(pid).ok()))
    }

    /// A regular expression.
    pub fn pattern(&self, name: &str) -> Result<Option<Regex>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        if text.len() > MAX_PATTERN {
            return Err(Problem::request(format!("`{name}` is longer than {MAX_PATTERN} bytes")));
        }
        let compiled = RegexBuilder::new(text).size_limit(MAX_COMPILED).build();
        // The library's message shows where, on several lines.
        compiled
            .map(Some)
            .map_err(|error| Problem::request(format!("`{name}` is no regular expression: {error}")))
    }

    /// A range of time: `from` and `to`, or `last`; the last 15 minutes if nothing is said. `prefix`: of the names.
    pub fn range(&self, prefix: &str, now_unix_ns: u64) -> Result<Range, Problem> {
        let [from_name, to_name, last_name] = ["from", "to", "last"].map(|name| format!("{prefix}{name}"));
        let wrong = |name: &str, why: String| Problem::request(format!("`{name}`: {why}"));
        let at = |name: &str| {
            let when = self.get(name).map(When::parse).transpose().map_err(|why| wrong(name, why))?;
            Ok::<_, Problem>(when.map(|when| when.unix_ns(now_unix_ns)))
        };
        let (from, to) = (at(&from_name)?, at(&to_name)?);
        let last =
            self.get(&last_name).map(when::duration).transpose().map_err(|why| wrong(&last_name, why))?;
        if from.is_some() && last.is_some() {
            return Err(Problem::request(format!("`{from_name}` and `{last_name}` say the same")));
        }
        let to_unix_ns = to.unwrap_or(now_unix_ns);
        let ago = When::Ago(last.unwrap_or(DEFAULT_SPAN));
        let from_unix_ns = from.unwrap_or_else(|| ago.unix_ns(to_unix_ns));
        match from_unix_ns < to_unix_ns {
            true => Ok(Range { from_unix_ns, to_unix_ns }),
            false => Err(Problem::request(format!("`{from_name}` is not before `{to_name}`"))),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const KNOWN: &[&str] = &["from", "to", "last", "pid", "process", "event"];

    fn read(query: &str) -> Result<Params, String> {
        Params::read(&format!("/x?{query}").parse().unwrap(), KNOWN).map_err(|problem| problem.message)
    }

    #[test]
    fn unknown_and_repeated_ones_are_refused() {
        assert!(read("pid=1&event=a&event=b").is_ok());
        assert_eq!(
            read("pod=1").unwrap_err(),
            "there is no parameter `pod` here; there are: from, to, last, pid, process, event"
        );
        assert_eq!(read("pid=1&pid=2").unwrap_err(), "`pid` is given too often");
        assert_eq!(read("x%0a%1b=1").unwrap_err().split('`').nth(1).unwrap(), "x\\n\\x1b");
    }

    #[test]
    fn numbers_and_patterns_are_bounded() {
        let pid = |query| read(query).unwrap().pid().map_err(|problem| problem.message);
        assert_eq!(pid("pid=7"), Ok(Some(7)));
        for query in ["pid=0", "pid=-1", "pid=4194305", "pid=x", "pid="] {
            assert!(pid(query).is_err(), "{query}");
        }
        let pattern = |text: &str| read(&format!("process={text}")).unwrap().pattern("process");
        assert!(pattern("java.*").unwrap().unwrap().is_match("java8"));
        assert!(pattern("(").is_err());
        assert!(pattern(&"a".repeat(257)).is_err());
        assert!(pattern("(a%7B1000%7D)%7B1000%7D").unwrap_err().message.contains("size limit"));
    }

    #[test]
    fn ranges_of_time() {
        const S: u64 = 1_000_000_000;
        let range = |query: &str| {
            let range = read(query).unwrap().range("", 10_000 * S).map_err(|problem| problem.message)?;
            Ok::<_, String>((range.from_unix_ns / S, range.to_unix_ns / S))
        };
        assert_eq!(range(""), Ok((9_100, 10_000)));
        assert_eq!(range("last=1m"), Ok((9_940, 10_000)));
        assert_eq!(range("from=100&to=200"), Ok((100, 200)));
        assert_eq!(range("to=5000&last=2m"), Ok((4_880, 5_000)));
        assert_eq!(range("from=1970-01-01T00:01:00Z&to=-15m"), Ok((60, 9_100)));
        assert_eq!(range("from=02:00"), Ok((7_200, 10_000)));
        for query in [
            "from=5&to=5",
            "from=6&to=5",
            "from=1&last=1m",
            "from=x",
            "last=1x",
            "last=-1m",
            "from=20000",
            "from=99999999999999999999",
        ] {
            assert!(range(query).is_err(), "{query}");
        }
    }

    proptest! {
        #[test]
        fn any_query_is_read_or_refused(text in "[!-~]{0,100}") {
            if let Ok(uri) = format!("/x?{text}").parse()
                && let Ok(params) = Params::read(&uri, KNOWN)
            {
                _ = (params.pid(), params.pattern("process"), params.range("", 1));
            }
        }
    }
}

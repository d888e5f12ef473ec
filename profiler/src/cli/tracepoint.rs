//! `-e tracepoint:CATEGORY:NAME[/FILTER/]`: from words to a tracepoint of this kernel and to what its fields must be.
//!
//! A filter is `FIELD OPERATOR NUMBER`, several of them joined by `&&`. The operators are `== != < <= > >=` and `&`, the
//! numbers decimal or hexadecimal.

use profiler_common::{
    probe::tracepoint::{Condition, HookFilter, MAX_CONDITIONS, Operator},
    sample::MAX_HOOKS,
};

use super::{
    error::{Exit, Failure},
    near::near,
};
use crate::{
    host::tracefs::{Field, Kind, Tracefs, TracefsError, Tracepoint},
    model::name::clean,
    probe::{
        Chosen, Event, Part,
        tracepoint::{Asked, PREFIX},
    },
};

/// Operators as they are written; longer ones before those that they begin with.
const OPERATORS: [(&str, Operator); 7] = [
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    ("<=", Operator::LessOrEqual),
    (">=", Operator::GreaterOrEqual),
    ("<", Operator::Less),
    (">", Operator::Greater),
    ("&", Operator::Bits),
];

/// How an event is written.
const FORM: &str = "tracepoint:CATEGORY:NAME or tracepoint:CATEGORY:NAME/FIELD == NUMBER && .../";

/// The event that `text`, what follows the prefix, names. `place`: how many hooks were named before.
pub fn resolve(text: &str, place: usize) -> Result<Chosen, Failure> {
    let usage = |what: &str| usage(text, what).mend(format!("write it {FORM}"));
    let (path, filter) = match text.split_once('/') {
        None => (text, None),
        Some((path, rest)) => {
            let filter = rest.strip_suffix('/').ok_or_else(|| usage("the filter does not end in `/`"))?;
            (path, Some(filter))
        }
    };
    let (category, name) = path.split_once(':').ok_or_else(|| usage("no category and name"))?;
    let conditions = filter.map_or(Ok(Vec::new()), conditions).map_err(|what| usage(&what))?;
    if place >= MAX_HOOKS {
        let message = format!("a recording has {MAX_HOOKS} events at most that are named by their hooks");
        return Err(usage_plain(text, &message).mend("record the others by themselves"));
    }
    let tracefs = Tracefs::open().map_err(|error| unreadable(text, &error))?;
    let tracepoint = find(&tracefs, category, name, text)?;
    let mut asked = HookFilter::default();
    for (condition, written) in asked.conditions.iter_mut().zip(&conditions) {
        *condition = resolved(written, &tracepoint, text)?;
    }
    let written: Vec<String> = conditions.iter().map(Written::to_string).collect();
    let filter = if written.is_empty() { String::new() } else { format!("/{}/", written.join("&&")) };
    let asked =
        Asked { name: format!("{PREFIX}{category}:{name}{filter}"), id: tracepoint.id, filter: asked };
    Ok(Chosen { event: Event::Tracepoint(place as u8), part: Part::Tracepoint(asked) })
}

fn usage(text: &str, what: &str) -> Failure {
    usage_plain(text, &clean(what.as_bytes()))
}

fn usage_plain(text: &str, what: &str) -> Failure {
    Failure::new(Exit::Usage, format!("-e {PREFIX}{}: {what}", clean(text.as_bytes())))
}

fn unreadable(text: &str, error: &TracefsError) -> Failure {
    let failure = Failure::new(Exit::Unsupported, format!("-e {PREFIX}{}: {error}", clean(text.as_bytes())));
    match error {
        TracefsError::NotMounted(_) => failure.mend("as root: mount -t tracefs tracefs /sys/kernel/tracing"),
        _ => failure.mend("see `profiler doctor`, line `tracefs`"),
    }
}

fn find(tracefs: &Tracefs, category: &str, name: &str, text: &str) -> Result<Tracepoint, Failure> {
    match tracefs.tracepoint(category, name) {
        Err(TracefsError::NotFound) => {}
        found => return found.map_err(|error| unreadable(text, &error)),
    }
    let names = tracefs.names(category).map_err(|error| unreadable(text, &error))?;
    let (what, near) = if names.is_empty() {
        let categories = tracefs.categories().map_err(|error| unreadable(text, &error))?;
        let near: Vec<String> =
            near(category, categories.iter().map(String::as_str)).into_iter().map(str::to_owned).collect();
        (format!("no category `{}` of tracepoints on this kernel", clean(category.as_bytes())), near)
    } else {
        let near = near(name, names.iter().map(String::as_str));
        let near = near.into_iter().map(|name| format!("{category}:{name}")).collect();
        (format!("no tracepoint of that name in `{category}` on this kernel"), near)
    };
    let others = "`profiler list WORD` finds tracepoints by a part of their name";
    let mend =
        if near.is_empty() { others.to_owned() } else { format!("near: {}; {others}", near.join(", ")) };
    Err(usage(text, &what).mend(mend))
}

/// A condition as it was written.
#[derive(Debug, PartialEq, Eq)]
struct Written {
    field: String,
    operator: (&'static str, Operator),
    value: i128,
    hexadecimal: bool,
}

impl std::fmt::Display for Written {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.field, self.operator.0)?;
        if self.hexadecimal { write!(f, "{:#x}", self.value) } else { write!(f, "{}", self.value) }
    }
}

fn conditions(text: &str) -> Result<Vec<Written>, String> {
    let conditions = text.split("&&").map(condition).collect::<Result<Vec<_>, _>>()?;
    if conditions.len() > MAX_CONDITIONS {
        return Err(format!("{} conditions, more than {MAX_CONDITIONS}", conditions.len()));
    }
    Ok(conditions)
}

fn condition(text: &str) -> Result<Written, String> {
    let text = text.trim();
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(text.len());
    let (field, rest) = text.split_at(end);
    let rest = rest.trim_start();
    let operator = OPERATORS.into_iter().find(|(written, _)| rest.starts_with(written));
    let Some(operator) = operator.filter(|_| !field.is_empty()) else {
        return Err(format!("`{text}` is not FIELD OPERATOR NUMBER, with one of == != < <= > >= &"));
    };
    let number = rest[operator.0.len()..].trim();
    let (negative, digits) = number.strip_prefix('-').map_or((false, number), |digits| (true, digits));
    let hexadecimal = digits.strip_prefix("0x").or_else(|| digits.strip_prefix("0X"));
    let magnitude = match hexadecimal {
        Some(digits) => u64::from_str_radix(digits, 16),
        None => digits.parse::<u64>(),
    };
    // A sign of its own that `parse` would take.
    let (Ok(magnitude), false) = (magnitude, digits.contains('+')) else {
        return Err(format!("`{number}` is not a number: decimal, hexadecimal with 0x, or negative"));
    };
    let value = if negative { -i128::from(magnitude) } else { i128::from(magnitude) };
    Ok(Written { field: field.to_owned(), operator, value, hexadecimal: hexadecimal.is_some() && !negative })
}

fn resolved(written: &Written, tracepoint: &Tracepoint, text: &str) -> Result<Condition, Failure> {
    let integers = || {
        let fields = tracepoint.fields.iter().filter(|field| field.kind == Kind::Integer);
        let names: Vec<String> = fields
            .map(|field| format!("{} ({})", clean(field.name.as_bytes()), clean(field.type_name.as_bytes())))
            .collect();
        if names.is_empty() { "it has none".to_owned() } else { names.join(", ") }
    };
    let mend = || format!("fields that can be compared: {}", integers());
    let Some(field) = tracepoint.fields.iter().find(|field| field.name == written.field) else {
        return Err(usage(text, &format!("it has no field `{}`", written.field)).mend(mend()));
    };
    if field.kind != Kind::Integer {
        let what = format!("the field `{}` is {}, not an integer", field.name, field.kind.words());
        return Err(usage(text, &what).mend(mend()));
    }
    let value = in_range(written, field).map_err(|what| usage(text, &what))?;
    Ok(Condition {
        operator: written.operator.1 as u32,
        signed: u32::from(field.signed),
        offset: field.offset,
        size: field.size,
        value,
    })
}

/// The number as the field would have it. A hexadecimal one is taken for the field's bits.
fn in_range(written: &Written, field: &Field) -> Result<u64, String> {
    let bits = 8 * field.size;
    let (low, high) = if field.signed {
        (-(1i128 << (bits - 1)), (1i128 << (bits - 1)) - 1)
    } else {
        (0, (1i128 << bits) - 1)
    };
    if (low..=high).contains(&written.value) {
        return Ok(written.value as u64);
    }
    if written.hexadecimal && written.value < 1i128 << bits {
        let unused = 64 - bits;
        return Ok((((written.value as u64) << unused) as i64 >> unused) as u64);
    }
    Err(format!("{} is outside of what the field `{}` can be: {low} to {high}", written.value, field.name))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(field: &str, operator: usize, value: i128, hexadecimal: bool) -> Written {
        Written { field: field.to_owned(), operator: OPERATORS[operator], value, hexadecimal }
    }

    #[test]
    fn conditions_are_read() {
        assert_eq!(
            conditions(" fd==1 && count >= 0x10&&ret<-1 "),
            Ok(vec![written("fd", 0, 1, false), written("count", 3, 16, true), written("ret", 4, -1, false)])
        );
        assert_eq!(conditions("a & 0x8"), Ok(vec![written("a", 6, 8, true)]));
        assert_eq!(conditions("a&8&&b!=18446744073709551615").map(|c| c.len()), Ok(2));
        for (text, part) in [
            ("", "is not FIELD OPERATOR NUMBER"),
            ("fd", "is not FIELD"),
            ("fd = 1", "is not FIELD"),
            ("== 1", "is not FIELD"),
            ("fd == ", "is not a number"),
            ("fd == x", "is not a number"),
            ("fd == +1", "is not a number"),
            ("fd == --1", "is not a number"),
            ("fd == 18446744073709551616", "is not a number"),
            ("fd == 1 &&", "is not FIELD"),
            ("a==1&&a==1&&a==1&&a==1&&a==1", "more than 4"),
        ] {
            let error = conditions(text).unwrap_err();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn numbers_are_as_the_field_has_them() {
        let field = |size, signed| Field {
            name: "f".into(),
            type_name: "t".into(),
            offset: 8,
            size,
            signed,
            kind: Kind::Integer,
        };
        let value = |value, hexadecimal, size, signed| {
            in_range(&written("f", 0, value, hexadecimal), &field(size, signed)).ok()
        };
        assert_eq!(value(-1, false, 4, true), Some(u64::MAX));
        assert_eq!(value(-1, false, 4, false), None);
        assert_eq!(value(0x8000_0000, true, 4, true), Some(0xffff_ffff_8000_0000));
        assert_eq!(value(0x8000_0000, false, 4, true), None);
        assert_eq!(value(256, true, 1, false), None);
        assert_eq!(value(255, false, 1, false), Some(255));
        assert_eq!(value(i128::from(u64::MAX), false, 8, false), Some(u64::MAX));
        assert_eq!(value(i128::from(u64::MAX), true, 8, true), Some(u64::MAX));
    }

    #[test]
    fn what_is_wrong_is_told_without_a_kernel() {
        for (text, part) in [
            ("sched", "no category and name"),
            ("sched:sched_switch/prev_pid==1", "does not end in `/`"),
            ("sched:sched_switch/prev_pid=1/", "is not FIELD"),
            ("sched:\u{1b}[31m/x/", "is not FIELD"),
        ] {
            let error = resolve(text, 0).unwrap_err();
            assert_eq!(error.exit, Exit::Usage);
            assert!(error.message.contains(part) && !error.message.contains('\u{1b}'), "{text}: {error}");
        }
        let error = resolve("sched:sched_switch", MAX_HOOKS).unwrap_err();
        assert!(error.message.contains("has 4 events at most"), "{error}");
    }
}

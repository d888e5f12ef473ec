//! The layering of the profiler: `cli -> session -> {probe -> bpf, perf; symbolize; render; store; export} -> model`.
//!
//! A module may name the modules that its layer lists and nothing else of the crate; some foreign crates and parts of
//! the standard library are bound to the layers whose business they are. Unit tests are exempt.

use super::{
    Problem,
    source::{Named, code, named, without_tests},
};

/// A top-level module and the ones that it may name.
struct Layer {
    name: &'static str,
    uses: &'static [&'static str],
}

const fn layer(name: &'static str, uses: &'static [&'static str]) -> Layer {
    Layer { name, uses }
}

/// From the bottom up. A new top-level module gets its line here, which is where its place is decided.
const LAYERS: [Layer; 17] = [
    layer("model", &[]),
    layer("elf", &["model"]),
    layer("host", &["model"]),
    layer("target", &["host", "model"]),
    layer("perf", &["host", "model"]),
    layer("bpf", &["perf", "host", "model"]),
    layer("unwind", &["bpf", "elf", "perf", "host", "model"]),
    layer("probe", &["bpf", "perf", "unwind", "target", "host", "model"]),
    // `perf`: process events tell which file was mapped where.
    layer("symbolize", &["perf", "elf", "host", "model"]),
    layer("render", &["model"]),
    layer("store", &["render", "model"]),
    layer("export", &["render", "store", "model"]),
    layer(
        "session",
        &[
            "probe",
            "bpf",
            "perf",
            "unwind",
            "target",
            "symbolize",
            "render",
            "store",
            "export",
            "host",
            "model",
        ],
    ),
    layer("daemon", &["session", "probe", "target", "render", "store", "export", "host", "model"]),
    // The top: it also explains the errors of every layer.
    layer(
        "cli",
        &[
            "daemon",
            "session",
            "probe",
            "bpf",
            "perf",
            "elf",
            "unwind",
            "target",
            "symbolize",
            "render",
            "store",
            "export",
            "host",
            "model",
        ],
    ),
    // The two roots of the crate: a tour of the library, and the call of `cli`.
    layer("lib", &[]),
    layer("main", &["cli", "session"]),
];

/// Code that not every layer may name: what, as the start of a path or as a macro; where it may or may not be; why.
struct Rule {
    names: &'static [&'static str],
    scope: Scope,
    why: &'static str,
}

enum Scope {
    Only(&'static [&'static str]),
    NotIn(&'static [&'static str]),
}

const RULES: [Rule; 4] = [
    Rule {
        names: &["aya", "aya_obj", "aya_log"],
        scope: Scope::Only(&["bpf", "probe"]),
        why: "only `bpf` and `probe` know aya",
    },
    Rule {
        names: &[
            "std::fs",
            "std::net",
            "std::io",
            "std::process",
            "std::env",
            "std::os",
            "std::thread",
            "libc",
            "rustix",
            "tokio",
            "println!",
            "eprintln!",
            "print!",
            "eprint!",
        ],
        scope: Scope::NotIn(&["model"]),
        why: "`model` does no I/O",
    },
    Rule {
        names: &["std::net", "std::env", "libc", "rustix", "tokio", "println!", "print!"],
        scope: Scope::NotIn(&["render"]),
        why: "`render` sees a report and the files it writes, nothing of the host",
    },
    Rule {
        names: &["println!", "print!", "eprintln!", "eprint!", "write!", "writeln!"],
        scope: Scope::NotIn(&["probe"]),
        why: "`probe` never formats",
    },
];

/// Checks one file that is not a test, if it is of the profiler.
pub fn check(path: &str, text: &str) -> Vec<Problem> {
    let Some(module) = module(path) else { return Vec::new() };
    let Some(top) = module.first().cloned() else { return Vec::new() };
    let Some(layer) = LAYERS.iter().find(|layer| layer.name == top) else {
        let message =
            format!("the module `{top}` has no layer: add it to LAYERS in xtask/src/tidy/layers.rs");
        return vec![Problem::new(path, 0, message)];
    };
    let mut problems = Vec::new();
    for name in named(&code(without_tests(text))) {
        if let Some(used) = used_module(&module, &name)
            && used != layer.name
            && LAYERS.iter().any(|layer| layer.name == used)
            && !layer.uses.contains(&used.as_str())
        {
            problems.push(Problem::new(path, name.line, format!("`{top}` may not use `{used}`")));
        }
        for rule in RULES.iter().filter(|rule| rule.forbids(&top, &name)) {
            let what = name.segments.join("::");
            problems.push(Problem::new(path, name.line, format!("`{what}`: {}", rule.why)));
        }
    }
    problems.dedup();
    problems
}

impl Rule {
    fn forbids(&self, top: &str, name: &Named) -> bool {
        let here = match self.scope {
            Scope::Only(layers) => !layers.contains(&top),
            Scope::NotIn(layers) => layers.contains(&top),
        };
        here && self.names.iter().any(|rule| matches(rule, name))
    }
}

fn matches(rule: &str, name: &Named) -> bool {
    match rule.strip_suffix('!') {
        Some(called) => name.is_macro && name.segments.last().is_some_and(|last| last == called),
        None => {
            let mut segments = name.segments.iter();
            let starts = rule.split("::").all(|part| segments.next().is_some_and(|segment| segment == part));
            // A single name without path is a variable or a method, unless it is imported as a whole.
            starts && name.segments.len() > 1
        }
    }
}

/// The module path of a file of the profiler.
fn module(path: &str) -> Option<Vec<String>> {
    let inner = path.strip_prefix("profiler/src/")?.strip_suffix(".rs")?;
    let mut module: Vec<String> = inner.split('/').map(str::to_owned).collect();
    if module.len() > 1 && module.last().is_some_and(|last| last == "mod") {
        module.pop();
    }
    Some(module)
}

/// The top-level module that a path leads to; `None` for one outside the crate or inside the own module.
fn used_module(module: &[String], name: &Named) -> Option<String> {
    let mut segments = name.segments.iter().peekable();
    match segments.next().map(String::as_str)? {
        // The binary names the library by its name.
        "crate" | "profiler" => segments.next().cloned(),
        "super" => {
            let mut depth = module.len().checked_sub(1)?;
            while segments.next_if(|segment| *segment == "super").is_some() {
                depth = depth.checked_sub(1)?;
            }
            if depth == 0 { segments.next().cloned() } else { module.first().cloned() }
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(path: &str, text: &str) -> Vec<String> {
        check(path, text).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn downward_is_allowed() {
        for (path, text) in [
            (
                "profiler/src/probe/cpu.rs",
                "use crate::{bpf::Map, model::Unit};\nuse aya::programs::PerfEvent;",
            ),
            ("profiler/src/render/svg.rs", "use super::Renderer;\nuse std::io::Write;\nuse crate::model::*;"),
            ("profiler/src/main.rs", "fn main() { profiler::cli::main() }"),
            ("profiler/src/model/profile.rs", "use super::Meta;\nuse super::super::model::Cost;"),
            ("profiler/src/cli/mod.rs", "use crate::session;\nfn f() { println!(\"{}\", 1) }"),
            ("xtask/src/main.rs", "use aya::Ebpf;"),
        ] {
            assert_eq!(problems(path, text), [""; 0], "{path}");
        }
    }

    #[test]
    fn upward_and_sideways_is_refused() {
        for (path, text, used) in [
            ("profiler/src/model/meta.rs", "use crate::render::text;", "render"),
            ("profiler/src/render/json.rs", "use crate::{model::Unit, host::kernel};", "host"),
            ("profiler/src/render/pprof/encode.rs", "use super::super::super::perf::record;", "perf"),
            ("profiler/src/symbolize/native.rs", "fn f() { crate::probe::cpu::x() }", "probe"),
            ("profiler/src/host/caps.rs", "use super::super::bpf;", "bpf"),
            ("profiler/src/session/mod.rs", "fn f(a: crate::cli::Args) {}", "cli"),
        ] {
            let found = problems(path, text);
            assert!(
                found.len() == 1 && found[0].contains(&format!("may not use `{used}`")),
                "{path}: {found:?}"
            );
        }
    }

    #[test]
    fn aya_stays_in_bpf_and_probe() {
        let text = "fn f(x: aya::Ebpf) {}";
        assert_eq!(problems("profiler/src/bpf/load.rs", text), [""; 0]);
        assert_eq!(
            problems("profiler/src/session/mod.rs", text),
            ["profiler/src/session/mod.rs:1: `aya::Ebpf`: only `bpf` and `probe` know aya"]
        );
        assert_eq!(problems("profiler/src/host/kernel.rs", "unsafe impl ::aya::Pod for X {}").len(), 1);
    }

    #[test]
    fn the_model_does_no_io() {
        for text in
            ["use std::{collections::BTreeMap, fs};", "fn f() { std::net::x() }", "fn f() { println!() }"]
        {
            assert_eq!(problems("profiler/src/model/x.rs", text).len(), 1, "{text}");
        }
        assert_eq!(problems("profiler/src/model/x.rs", "use std::fmt;\nfn f() { write!(f, \"\") }"), [""; 0]);
    }

    #[test]
    fn a_probe_formats_nothing() {
        assert_eq!(problems("profiler/src/probe/cpu.rs", "fn f() { writeln!(out, \"{x}\") }").len(), 1);
    }

    #[test]
    fn comments_strings_and_tests_do_not_count() {
        let text = "// crate::cli\n/// [`crate::session`]\nconst S: &str = \"crate::cli::x\";\n#[cfg(test)]\nmod tests {\nuse crate::cli;\n}\n";
        assert_eq!(problems("profiler/src/model/x.rs", text), [""; 0]);
    }

    #[test]
    fn a_new_module_must_get_a_layer() {
        let found = problems("profiler/src/misc/x.rs", "");
        assert!(found[0].contains("`misc` has no layer"), "{found:?}");
    }

    #[test]
    fn layers_name_only_lower_layers() {
        for (index, layer) in LAYERS.iter().enumerate() {
            for used in layer.uses {
                let place = LAYERS.iter().position(|other| other.name == *used);
                assert!(place.is_some_and(|place| place < index), "{} -> {used}", layer.name);
            }
        }
    }
}

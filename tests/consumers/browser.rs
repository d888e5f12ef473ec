//! The flamegraph in a browser: it opens, a click on a box zooms, a search marks and counts.
//!
//! A script is put behind the picture's own; it does what a user does (events, and a `prompt` that answers) and writes
//! what it sees into the document, which the browser then prints.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use profiler_tests::{record::Recorded, skip::skip};
use serde_json::Value;
use tempfile::TempDir;

use crate::tools::{find, output, recording};

/// The browser, if there is one.
pub fn chromium(test: &str) -> Option<PathBuf> {
    let browser = ["chromium", "chromium-browser", "google-chrome"].into_iter().find_map(find);
    if browser.is_none() {
        skip(test, "no Chromium: `cargo xtask setup --tests`");
    }
    browser
}

/// The document that a page has become after its scripts ran.
pub fn document(browser: &Path, page: &str) -> String {
    let profile = TempDir::new().unwrap();
    let mut command = Command::new(browser);
    command
        .args(["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"])
        .args(["--disable-background-networking", "--disable-component-update", "--disable-sync"])
        .args(["--allow-file-access-from-files", "--virtual-time-budget=10000", "--dump-dom"])
        .arg(format!("--user-data-dir={}", profile.path().display()));
    output(command.arg(page))
}

/// What the script saw: the text of its element, as JSON.
fn seen(document: &str) -> Value {
    let (_, behind) =
        document.split_once("SEEN{").unwrap_or_else(|| panic!("the script did not run:\n{document}"));
    let (text, _) = behind.split_once("}SEEN").expect("the script writes both marks");
    let text = text.replace("&quot;", "\"").replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&");
    serde_json::from_str(&format!("{{{text}}}")).unwrap_or_else(|e| panic!("{text}: {e}"))
}

/// Opens the picture with the script of this test.
fn act(browser: &Path, recorded: &Recorded, script: &str) -> Value {
    let svg = String::from_utf8(recorded.output("out.svg")).unwrap();
    let script = format!(
        "<script type=\"text/ecmascript\"><![CDATA[\n\
         window.addEventListener('load', () => setTimeout(() => {{\n\
           let seen; try {{ seen = act(); }} catch (e) {{ seen = {{error: String(e), stack: e.stack}}; }}\n\
           const out = document.createElementNS('http://www.w3.org/2000/svg', 'desc');\n\
           out.textContent = 'SEEN' + JSON.stringify(seen) + 'SEEN';\n\
           document.documentElement.appendChild(out);\n\
         }}, 100));\n\
         const boxes = () => [...document.querySelectorAll('#frames > g')];\n\
         const title = g => g.querySelector('title').textContent;\n\
         const width = g => parseFloat(g.querySelector('rect').getAttribute('width'));\n\
         const shown = g => !g.classList.contains('hide');\n\
         const box = name => boxes().filter(g => title(g).startsWith(name)).sort((a, b) => width(b) - width(a))[0];\n\
         const click = e => e.dispatchEvent(new MouseEvent('click', {{bubbles: true, cancelable: true, view: window}}));\n\
         {script}\n]]></script></svg>"
    );
    let (body, _) = svg.trim_end().rsplit_once("</svg>").expect("the picture ends");
    let directory = TempDir::new().unwrap();
    let page = directory.path().join("page.svg");
    fs::write(&page, format!("{body}{script}")).unwrap();
    let seen = seen(&document(browser, &format!("file://{}", page.display())));
    assert!(seen["error"].is_null(), "{seen:#}");
    seen
}

#[test]
fn the_flamegraph_opens() {
    let Some(browser) = chromium("the_flamegraph_opens") else { return };
    let seen = act(
        &browser,
        recording(),
        "function act() { return { names: boxes().map(title), widest: Math.max(...boxes().map(width)) }; }",
    );
    let names: Vec<&str> = seen["names"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    for name in ["split::work(unsigned long)", "inline_leaf", "kernel_caller", "thread_beta_work"] {
        assert!(
            names.iter().any(|title| title.starts_with(name)),
            "{name} is not in the picture: {names:#?}"
        );
    }
    assert!(seen["widest"].as_f64().unwrap() > 0.0);
}

#[test]
fn a_click_zooms() {
    let Some(browser) = chromium("a_click_zooms") else { return };
    let seen = act(
        &browser,
        recording(),
        "function act() {
           const name = 'inline_outer', before = width(box(name)), all = boxes().filter(shown).length;
           click(box(name));
           const after = width(box(name)), zoomed = boxes().filter(shown).length;
           const other = shown(box('kernel_caller'));
           click(document.getElementById('unzoom'));
           return { before, after, all, zoomed, other, back: width(box(name)), again: boxes().filter(shown).length };
         }",
    );
    let number = |key: &str| seen[key].as_f64().unwrap_or_else(|| panic!("{key}: {seen}"));
    assert!(number("after") > 2.0 * number("before"), "{seen}");
    assert!(number("zoomed") < number("all"), "{seen}");
    assert_eq!(seen["other"], false, "{seen}");
    assert!((number("back") - number("before")).abs() < 0.01 * number("before"), "{seen}");
    assert_eq!(number("again"), number("all"), "{seen}");
}

#[test]
fn a_search_marks_and_counts() {
    let Some(browser) = chromium("a_search_marks_and_counts") else { return };
    let seen = act(
        &browser,
        recording(),
        "function act() {
           const fill = g => g.querySelector('rect').getAttribute('fill'), before = fill(box('inline_leaf'));
           window.prompt = () => 'inline_(leaf|outer)';
           click(document.getElementById('search'));
           const marked = boxes().filter(g => fill(g) === fill(box('inline_leaf')) && fill(g) !== before).map(title);
           return { marked, matched: document.getElementById('matched').textContent };
         }",
    );
    let marked: Vec<&str> = seen["marked"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert!(!marked.is_empty(), "{seen}");
    assert!(marked.iter().all(|title| title.starts_with("inline_")), "{seen}");
    // 200 of some 1,300 ms.
    let matched = seen["matched"].as_str().unwrap();
    let percent: f64 = matched
        .trim_start_matches("Matched: ")
        .trim_end_matches('%')
        .parse()
        .unwrap_or_else(|e| panic!("{matched}: {e}"));
    assert!((5.0..30.0).contains(&percent), "{matched}");
}

/// Names of a hostile target: no element of theirs is in the document, and no script of theirs ran.
#[test]
fn hostile_names_stay_text() {
    let Some(browser) = chromium("hostile_names_stay_text") else { return };
    let recorded = profiler_tests::record::Record::at_999()
        .output("out.svg")
        .command(&profiler_tests::workload::path("hostile_symbols"), ["200"])
        .run();
    recorded.succeeded();
    let seen = act(
        &browser,
        &recorded,
        "let ran = 0; window.alert = () => ran++; window.x = () => ran++;
         function act() {
           const inner = [...document.querySelectorAll('svg svg, foreignObject, [onload]')]
             .filter(e => e !== document.documentElement);
           return { ran, inner: inner.length, scripts: document.querySelectorAll('script').length,
                    names: boxes().map(title).filter(t => t.includes('alert(1)')) };
         }",
    );
    assert_eq!(seen["ran"], 0, "{seen}");
    assert_eq!(seen["scripts"], 2, "the picture's own and this test's: {seen}");
    let names = seen["names"].as_array().unwrap();
    assert!(
        names.iter().any(|name| name.as_str().unwrap().starts_with("<script>alert(1)</script>")),
        "{seen}"
    );
}

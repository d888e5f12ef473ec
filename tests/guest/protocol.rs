//! What the guest says to the host, a line each on the console: `xtask/src/vm/verdict.rs` reads it.
//!
//! A line begins with a word that the host chose for this boot, so that nothing that a test or the kernel prints can
//! be taken for a verdict; what tests print is passed on behind `output`.
//!
//! ```text
//! @WORD machine RELEASE CPUS
//! @WORD plan TEST            for each test that is going to run
//! @WORD output TEST LINE     what a test printed that did not pass, or not in its first run
//! @WORD verdict TEST passed|failed|skipped|hung MILLISECONDS
//! @WORD broken WHY           the guest itself is at fault
//! @WORD end COUNT            all verdicts are said
//! ```

use std::{env, fs::OpenOptions, io::Write as _};

/// The parameter of the kernel's command line that has the word.
const WORD_VARIABLE: &str = "VM_WORD";

/// Where the host listens.
pub struct Console {
    word: String,
}

impl Console {
    /// The console, with the word that the kernel's command line has.
    pub fn from_environment() -> Self {
        Self { word: env::var(WORD_VARIABLE).unwrap_or_default() }
    }

    /// Says one line. Control characters would end it or move the terminal's cursor: none is passed on.
    pub fn say(&self, text: &str) {
        let clean: String =
            text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).take(2000).collect();
        let line = format!("@{} {clean}\n", self.word);
        // If the console is gone, nobody can be told.
        let console = OpenOptions::new().write(true).open("/dev/console");
        drop(console.and_then(|mut console| console.write_all(line.as_bytes())));
    }

    /// Says that the guest cannot go on.
    pub fn broken(&self, why: &str) {
        self.say(&format!("broken {why}"));
    }
}

/// The variables that tests must not see.
pub const PRIVATE_VARIABLES: [&str; 1] = [WORD_VARIABLE];

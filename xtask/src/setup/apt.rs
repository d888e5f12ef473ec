//! Debian's and Ubuntu's packages.

use std::process::Command;

use ebpf_toolchain::on_path;

use crate::process::{Failure, as_root, capture, run, say, succeeds};

/// The package manager; remembers that the lists are fresh.
#[derive(Default)]
pub struct Apt {
    updated: bool,
}

impl Apt {
    /// `true` on a machine that has apt.
    pub fn available() -> bool {
        on_path("apt-get").is_some() && on_path("dpkg-query").is_some()
    }

    /// `true` if the package is installed.
    pub fn installed(package: &str) -> bool {
        Self::installed_version(package).is_some()
    }

    /// The version that is installed.
    pub fn installed_version(package: &str) -> Option<String> {
        let mut query = Command::new("dpkg-query");
        query.args(["--show", "--showformat=${db:Status-Status} ${Version}", package]);
        let answer = capture(&mut query).ok()?;
        answer.strip_prefix("installed ").map(str::to_owned)
    }

    /// The version that would be installed, of fresh package lists. `None`: there is no such package.
    pub fn candidate(&mut self, package: &str) -> Result<Option<String>, Failure> {
        self.update();
        let policy = capture(Command::new("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
        Ok(parse_candidate(&policy))
    }

    /// Installs those of the packages that are not installed. Removes nothing: if a package conflicts with one that is
    /// there, this fails and the user decides.
    pub fn install(&mut self, packages: &[&str], why: &str) -> Result<(), Failure> {
        let missing: Vec<&str> =
            packages.iter().copied().filter(|package| !Self::installed(package)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let names = missing.join(" ");
        let by_hand =
            format!("by hand: sudo apt-get update && sudo apt-get install --no-install-recommends {names}");
        if !Self::available() {
            return Err(Failure::new(format!(
                "missing for {why}: {names}, and there is no apt-get to install it"
            )));
        }
        self.update();
        say(format!("installing for {why}: {names}"));
        let mut command = apt_get().map_err(|e| Failure::new(format!("{e}; {by_hand}")))?;
        command.args(["install", "--yes", "--no-install-recommends", "--no-remove"]).args(&missing);
        run(&mut command).map_err(|e| Failure::new(format!("{e}; {by_hand}")))
    }

    /// A source that cannot be reached does not matter if the others have the packages; neither does it who may not
    /// update, if somebody did before.
    pub fn update(&mut self) {
        if self.updated {
            return;
        }
        self.updated = true;
        let Ok(mut command) = apt_get() else { return };
        say("updating the package lists");
        if !succeeds(command.args(["--quiet", "update"])) {
            say("some package lists could not be updated; going on with what there is");
        }
    }
}

fn apt_get() -> Result<Command, Failure> {
    let mut command = as_root("env")?;
    command.args(["DEBIAN_FRONTEND=noninteractive", "apt-get", "--option=Acquire::http::Timeout=20"]);
    Ok(command)
}

/// Reads the answer of `apt-cache policy`: the version that would be installed.
pub fn parse_candidate(policy: &str) -> Option<String> {
    let version = policy.lines().find_map(|line| line.trim().strip_prefix("Candidate: "))?;
    (version != "(none)").then(|| version.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn candidates_of_apt_cache_policy() {
        let policy = "rustc-web:\n  Installed: (none)\n  Candidate: 1.96.0+dfsg1-1\n  Version table:\n";
        assert_eq!(parse_candidate(policy).as_deref(), Some("1.96.0+dfsg1-1"));
        assert_eq!(parse_candidate("x:\n  Installed: (none)\n  Candidate: (none)\n"), None);
        assert_eq!(parse_candidate(""), None, "an unknown package gives no output");
    }
}

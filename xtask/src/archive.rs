//! Packages of another suite or architecture than this machine's, from the mirror that its apt uses, with nothing
//! changed on the machine: no source added, no list, no status, no root.
//!
//! apt runs with a configuration of its own that keeps everything below [`workspace::cache_directory`]. What says how to
//! reach the mirror (proxies, credentials) stays the system's, and so do the keys that the lists are signed with.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    process::{Failure, capture, run, run_within, say},
    setup::apt::{Apt, parse_candidate},
    workspace,
};

/// Package lists older than this are fetched again.
const LISTS_AGE: Duration = Duration::from_secs(24 * 3600);
/// Longest download of the lists (9 MB) or of one package (100 MB).
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// Where Debian keeps its keys: all suites' in one file, until bookworm and from trixie on.
const KEYRINGS: [&str; 2] =
    ["/usr/share/keyrings/debian-archive-keyring.gpg", "/usr/share/keyrings/debian-archive-keyring.pgp"];

/// Suites of the mirror for one architecture.
pub struct Archive {
    /// What it is called in messages.
    name: String,
    directory: PathBuf,
}

impl Archive {
    /// The packages of these suites (`bookworm`, `bookworm-security`) for an architecture as Debian names it (`arm64`).
    /// Fetches their lists if there are none of today.
    ///
    /// A suite that the mirror does not have is said and has no packages.
    ///
    /// # Errors
    /// Without apt, without a mirror of Debian's, or if no list at all can be had.
    pub fn open(architecture: &str, suites: &[&str]) -> Result<Self, Failure> {
        if !Apt::available() {
            return Err(Failure::new("there is no apt-get on this machine"));
        }
        let name = format!("{} {architecture}", suites.join(" "));
        let directory = workspace::cache_directory()?.join("apt").join(name.replace(' ', "_"));
        let archive = Self { name, directory };
        if !archive.lists_are_fresh() {
            archive.configure(architecture, &Mirror::of_the_system()?, suites)?;
            archive.update()?;
        }
        Ok(archive)
    }

    /// The newest version of a package, as apt would choose it. `None`: there is no such package.
    pub fn candidate(&self, package: &str) -> Result<Option<String>, Failure> {
        let policy = capture(self.command("apt-cache").env("LC_ALL", "C").args(["policy", package]))?;
        Ok(parse_candidate(&policy))
    }

    /// The names of the packages that the newest version of a package depends on, of alternatives the first.
    pub fn dependencies(&self, package: &str) -> Result<Vec<String>, Failure> {
        let record = capture(self.command("apt-cache").args(["show", "--no-all-versions", package]))?;
        Ok(parse_dependencies(&record))
    }

    /// Downloads a package and returns its file; apt checks it against the signed lists. It is kept: the next time
    /// nothing is downloaded.
    pub fn download(&self, package: &str, version: &str) -> Result<PathBuf, Failure> {
        let packages = self.directory.join("packages");
        let kept = packages.join(format!("{package}={version}"));
        if let Some(file) = package_file(&kept) {
            return Ok(file);
        }
        // A download that is interrupted leaves a file of the right name.
        let unfinished = packages.join(format!("unfinished-{}", std::process::id()));
        fs::create_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
        say(format!("downloading {package} {version} ({})", self.name));
        let mut command = self.command("apt-get");
        command.args(["--quiet=2", "download", &format!("{package}={version}")]).current_dir(&unfinished);
        let result = run_within(&mut command, DOWNLOAD_LIMIT);
        // Somebody else's download of the same file may have come first.
        if result.is_err() || fs::rename(&unfinished, &kept).is_err() {
            fs::remove_dir_all(&unfinished).map_err(|e| Failure::io(&unfinished, &e))?;
        }
        result?;
        package_file(&kept)
            .ok_or_else(|| Failure::new(format!("`apt-get download` left no file in {}", kept.display())))
    }

    fn stamp(&self) -> PathBuf {
        self.directory.join("updated")
    }

    fn lists_are_fresh(&self) -> bool {
        let time = fs::metadata(self.stamp()).and_then(|meta| meta.modified());
        time.is_ok_and(|time| time.elapsed().is_ok_and(|age| age < LISTS_AGE))
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(program);
        command.arg(format!("--config-file={}", self.directory.join("apt.conf").display()));
        command
    }

    /// Writes apt's configuration. `--config-file` is read after the system's files and so has the last word.
    fn configure(&self, architecture: &str, mirror: &Mirror, suites: &[&str]) -> Result<(), Failure> {
        for part in ["state/lists/partial", "cache/archives/partial", "empty"] {
            let part = self.directory.join(part);
            fs::create_dir_all(&part).map_err(|e| Failure::io(&part, &e))?;
        }
        let write = |name: &str, text: &str| {
            let path = self.directory.join(name);
            fs::write(&path, text).map_err(|e| Failure::io(&path, &e))
        };
        write("state/status", "")?;
        write("sources.list", &sources(architecture, mirror, suites)?)?;
        write("apt.conf", &configuration(&self.directory, architecture))
    }

    fn update(&self) -> Result<(), Failure> {
        say(format!("fetching the package lists of {}", self.name));
        let mut command = self.command("apt-get");
        let result = run_within(command.args(["--quiet=2", "update"]), DOWNLOAD_LIMIT);
        let lists = self.directory.join("state/lists");
        let entries = fs::read_dir(&lists).map_err(|e| Failure::io(&lists, &e))?;
        if !entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages")) {
            result?;
            return Err(Failure::new(format!("the mirror has no package lists of {}", self.name)));
        }
        if result.is_err() {
            say(format!(
                "not all package lists of {} could be fetched; going on with what there is",
                self.name
            ));
        }
        fs::write(self.stamp(), "").map_err(|e| Failure::io(&self.stamp(), &e))
    }
}

/// Unpacks a package below a directory, as it would be below `/`.
pub fn unpack(package: &Path, into: &Path) -> Result<(), Failure> {
    run(Command::new("dpkg-deb").arg("--extract").args([package, into]))
}

/// The suites that the system itself takes packages from, security updates included.
pub fn system_suites() -> Result<Vec<String>, Failure> {
    Ok(Mirror::of_the_system()?.suites)
}

/// Where this machine gets Debian's packages from.
#[derive(Debug, PartialEq, Eq)]
struct Mirror {
    /// Of the suites.
    main: String,
    /// Of the suites with security updates. They are at an address of their own, which not every machine has.
    security: Option<String>,
    suites: Vec<String>,
}

impl Mirror {
    fn of_the_system() -> Result<Self, Failure> {
        const FORMAT: &str = "$(LABEL)|$(COMPONENT)|$(RELEASE)|$(REPO_URI)";
        let targets = || {
            let mut command = Command::new("apt-get");
            capture(command.args(["indextargets", "--format", FORMAT, "Identifier: Packages"]))
        };
        if let Some(mirror) = Self::parse(&targets()?) {
            return Ok(mirror);
        }
        // Who publishes a source stands in its lists, which images of containers come without.
        Apt::default().update();
        Self::parse(&targets()?)
            .ok_or_else(|| Failure::new("apt has no source of Debian's packages on this machine"))
    }

    fn parse(targets: &str) -> Option<Self> {
        let (mut main, mut security, mut suites) = (None, None, Vec::new());
        for line in targets.lines() {
            let mut fields = line.split('|');
            let mut field = || fields.next().unwrap_or_default();
            let (label, component, suite, address) = (field(), field(), field(), field());
            let place = match label {
                "Debian" => &mut main,
                "Debian-Security" => &mut security,
                _ => continue,
            };
            if component == "main" && !suites.iter().any(|known| known == suite) {
                place.get_or_insert_with(|| address.to_owned());
                suites.push(suite.to_owned());
            }
        }
        Some(Self { main: main?, security, suites })
    }
}

/// The lines of sources.list.
fn sources(architecture: &str, mirror: &Mirror, suites: &[&str]) -> Result<String, Failure> {
    let keyring = KEYRINGS.iter().find(|file| Path::new(file).exists());
    let keys = keyring.map(|file| format!(" signed-by={file}")).unwrap_or_default();
    let mut text = String::new();
    for suite in suites {
        let address = if suite.ends_with("-security") {
            let missing = || Failure::new("apt has no source of Debian's security updates on this machine");
            mirror.security.as_ref().ok_or_else(missing)?
        } else {
            &mirror.main
        };
        text += &format!("deb [arch={architecture} target=Packages{keys}] {address} {suite} main\n");
    }
    Ok(text)
}

fn configuration(directory: &Path, architecture: &str) -> String {
    let directory = directory.display();
    format!(
        "Dir::State \"{directory}/state\";\n\
         Dir::State::status \"{directory}/state/status\";\n\
         Dir::Cache \"{directory}/cache\";\n\
         Dir::Etc::SourceList \"{directory}/sources.list\";\n\
         Dir::Etc::SourceParts \"{directory}/empty\";\n\
         Dir::Etc::Preferences \"{directory}/empty/none\";\n\
         Dir::Etc::PreferencesParts \"{directory}/empty\";\n\
         #clear APT::Architectures;\n\
         APT::Architecture \"{architecture}\";\n\
         APT::Architectures {{ \"{architecture}\"; }};\n\
         // Lists of suites that are out of support have expired.\n\
         Acquire::Check-Valid-Until \"false\";\n\
         Acquire::Languages \"none\";\n\
         Acquire::http::Timeout \"20\";\n\
         // apt's own user cannot write into the cache of whoever runs this.\n\
         APT::Sandbox::User \"root\";\n\
         // What the system does after an update is meant for its own lists.\n\
         #clear APT::Update::Post-Invoke;\n\
         #clear APT::Update::Post-Invoke-Success;\n"
    )
}

fn parse_dependencies(record: &str) -> Vec<String> {
    let Some(line) = record.lines().find_map(|line| line.strip_prefix("Depends: ")) else {
        return Vec::new();
    };
    let name = |dependency: &str| {
        let end = dependency.find([' ', '(', '|', ':']).unwrap_or(dependency.len());
        dependency[..end].to_owned()
    };
    line.split(',').map(|dependency| name(dependency.trim())).collect()
}

fn package_file(directory: &Path) -> Option<PathBuf> {
    let mut files = fs::read_dir(directory).ok()?.flatten().map(|entry| entry.path());
    files.find(|file| file.extension().is_some_and(|extension| extension == "deb"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TARGETS: &str = "$(LABEL)|main|nodistro|https://deb.example.org/node/\n\
        Debian|main|bookworm|http://mirror.example/debian/\n\
        Debian|contrib|bookworm|http://mirror.example/debian/\n\
        Debian|main|bookworm-updates|http://mirror.example/debian/\n\
        Debian-Security|main|bookworm-security|http://mirror.example/security/\n";

    #[test]
    fn the_mirror_is_the_one_whose_lists_are_debians() {
        let mirror = Mirror::parse(TARGETS).unwrap();
        assert_eq!(mirror.main, "http://mirror.example/debian/");
        assert_eq!(mirror.security.as_deref(), Some("http://mirror.example/security/"));
        assert_eq!(mirror.suites, ["bookworm", "bookworm-updates", "bookworm-security"]);
        assert_eq!(Mirror::parse("$(LABEL)|main|bookworm|http://mirror.example/debian/\n"), None);
    }

    #[test]
    fn security_updates_have_an_address_of_their_own() {
        let mut mirror = Mirror::parse(TARGETS).unwrap();
        let text = sources("arm64", &mirror, &["trixie", "trixie-security"]).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("deb [arch=arm64 target=Packages"), "{text}");
        assert!(lines[0].ends_with("] http://mirror.example/debian/ trixie main"), "{text}");
        assert!(lines[1].ends_with("] http://mirror.example/security/ trixie-security main"), "{text}");
        mirror.security = None;
        assert!(sources("arm64", &mirror, &["trixie-security"]).is_err());
    }

    #[test]
    fn dependencies_without_versions_and_alternatives() {
        let record =
            "Package: x\nDepends: linux-image-6.1.0-56-cloud-arm64 (= 6.1.192-2), a:any | b, c\nSection: y\n";
        assert_eq!(parse_dependencies(record), ["linux-image-6.1.0-56-cloud-arm64", "a", "c"]);
        assert_eq!(parse_dependencies("Package: x\n"), Vec::<String>::new());
    }

    #[test]
    fn only_a_whole_package_counts() {
        let directory = std::env::temp_dir().join(format!("xtask-archive-{}", std::process::id()));
        assert_eq!(package_file(&directory), None);
        fs::create_dir_all(directory.join("partial")).unwrap();
        assert_eq!(package_file(&directory), None);
        fs::write(directory.join("p_1_arm64.deb"), "").unwrap();
        assert_eq!(package_file(&directory), Some(directory.join("p_1_arm64.deb")));
        fs::remove_dir_all(directory).unwrap();
    }
}

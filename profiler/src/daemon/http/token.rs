//! The bearer token: read from a file that is its owner's alone, compared in constant time.

use std::{
    fmt,
    fs::File,
    hint::black_box,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use rustix::{
    fs::{Mode, OFlags, open},
    process::geteuid,
};

/// Shortest token, bytes: 16 random ones cannot be guessed over a network.
const LEAST: usize = 16;

/// Longest token, bytes.
const MOST: usize = 1024;

/// A token; never shown.
#[derive(Clone)]
pub struct Token(Vec<u8>);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token")
    }
}

/// Why a token is not used.
#[derive(Debug, thiserror::Error)]
#[error("token file {}: {cause}", path.display())]
pub struct TokenError {
    /// The file.
    pub path: PathBuf,
    /// Why.
    pub cause: Cause,
}

/// Why a token is not used.
#[derive(Debug, thiserror::Error)]
pub enum Cause {
    /// It cannot be read; a link is not followed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// It is no file.
    #[error("is no regular file")]
    NoFile,
    /// Somebody else can change it.
    #[error("belongs to user {0}, but must belong to root or to the user that the daemon runs as")]
    Owner(u32),
    /// Somebody else can read it.
    #[error("has mode {0:04o}: others can read or change it; chmod 600")]
    Mode(u32),
    /// It is not one word of the right length.
    #[error(
        "must be one word of {LEAST} to {MOST} visible ASCII characters (`openssl rand -hex 32` makes one)"
    )]
    Content,
}

impl Token {
    /// Reads it.
    ///
    /// # Errors
    /// If it cannot be read, others could have read or changed it, or it is no token.
    pub fn read(path: &Path) -> Result<Self, TokenError> {
        Self::read_file(path).map_err(|cause| TokenError { path: path.to_owned(), cause })
    }

    fn read_file(path: &Path) -> Result<Self, Cause> {
        // Not blocking: a fifo must not stop the daemon before it is seen to be none.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(open(path, flags, Mode::empty()).map_err(io::Error::from)?);
        let metadata = file.metadata()?;
        if !metadata.is_file() {
            return Err(Cause::NoFile);
        }
        if metadata.uid() != 0 && metadata.uid() != geteuid().as_raw() {
            return Err(Cause::Owner(metadata.uid()));
        }
        if metadata.mode() & 0o077 != 0 {
            return Err(Cause::Mode(metadata.mode() & 0o7777));
        }
        let mut bytes = Vec::new();
        file.take(MOST as u64 + 3).read_to_end(&mut bytes)?;
        let word = bytes.trim_ascii();
        let fits = (LEAST..=MOST).contains(&word.len()) && word.iter().all(u8::is_ascii_graphic);
        if fits { Ok(Self(word.to_vec())) } else { Err(Cause::Content) }
    }

    /// Whether an `Authorization` header carries it. How long that takes depends only on the header's length.
    pub fn is_in(&self, header: &[u8]) -> bool {
        const SCHEME: &[u8] = b"bearer ";
        let Some((scheme, given)) = header.split_at_checked(SCHEME.len()) else { return false };
        scheme.eq_ignore_ascii_case(SCHEME) && self.equals(given)
    }

    fn equals(&self, given: &[u8]) -> bool {
        let mut difference = u8::from(given.len() != self.0.len());
        for (i, byte) in given.iter().enumerate() {
            // Over all that was given, so that the time does not tell the token's length.
            difference |= black_box(byte ^ self.0[i % self.0.len()]);
        }
        black_box(difference) == 0
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt as _};

    use super::*;

    fn read(content: &str, mode: u32) -> Result<Token, String> {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), content).unwrap();
        fs::set_permissions(file.path(), fs::Permissions::from_mode(mode)).unwrap();
        Token::read(file.path()).map_err(|error| error.cause.to_string())
    }

    #[test]
    fn a_token_is_its_owners_alone() {
        assert!(read("0123456789abcdef\n", 0o600).is_ok());
        assert!(read("0123456789abcdef\n", 0o400).is_ok());
        for mode in [0o640, 0o604, 0o660, 0o601] {
            assert!(read("0123456789abcdef\n", mode).unwrap_err().contains("chmod 600"));
        }
        for content in ["", "short", "0123456789 abcdef", "0123456789abcdé0", &"x".repeat(MOST + 1)] {
            assert!(read(content, 0o600).unwrap_err().contains("one word"), "{content}");
        }
        assert!(read(&"x".repeat(MOST), 0o600).is_ok());
    }

    #[test]
    fn links_and_other_files_are_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let (file, link) = (directory.path().join("f"), directory.path().join("l"));
        fs::write(&file, "0123456789abcdef").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        assert!(matches!(Token::read(&link).unwrap_err().cause, Cause::Io(_)));
        assert!(matches!(Token::read(directory.path()).unwrap_err().cause, Cause::NoFile));
        assert!(Token::read(&file).is_ok());
    }

    #[test]
    fn only_the_whole_token_opens() {
        let token = read("0123456789abcdef", 0o600).unwrap();
        assert!(token.is_in(b"Bearer 0123456789abcdef") && token.is_in(b"bearer 0123456789abcdef"));
        for header in [
            &b"Bearer "[..],
            b"",
            b"Bearer 0123456789abcde",
            b"Bearer 0123456789abcdef0",
            b"Bearer 0123456789abcdef0123456789abcdef",
            b"Basic 0123456789abcdef",
            b"Bearer  0123456789abcdef",
            b"0123456789abcdef",
        ] {
            assert!(!token.is_in(header), "{}", String::from_utf8_lossy(header));
        }
        assert_eq!(format!("{token:?}"), "Token");
    }
}

//! Temporary.
use profiler_common::unwind::Arch;
#[derive(Debug)]
pub struct Table {
    pub arch: Arch,
    pub first_page: u32,
    pub pages: Vec<u32>,
    pub rows: Vec<u32>,
    pub rules: Vec<u64>,
}
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    #[error("none")]
    NoTable,
}
impl Table {
    pub fn of_file(_: &std::fs::File) -> Result<Self, TableError> {
        Err(TableError::NoTable)
    }
    pub fn of_memory(_: &[u8]) -> Result<Self, TableError> {
        Err(TableError::NoTable)
    }
}

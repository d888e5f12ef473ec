//! x
use crate::process::Failure;
pub fn jvm_matrix(_only: Option<&str>) -> Result<(), Failure> {
    Ok(())
}

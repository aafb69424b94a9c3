//! A data directory that may only be read: a backup, a mounted image, somebody else's. What looks at it works on a copy.

use selvedge_store::ReadOnlyCopy;

use crate::bootstrap::EngineError;
use crate::control::Control;

use super::access::config;
use super::args::Common;
use super::exit::Stop;

/// A copy of the data directory, if that may only be read and nobody who holds it can be asked; and how to name it.
pub async fn copied(common: &Common) -> Result<Option<(ReadOnlyCopy, Common)>, Stop> {
    let config = config(common)?;
    if !config.data.join("meta").exists() || !ReadOnlyCopy::is_needed(&config.data) || matches!(Control::connect(&config.data).await, Ok(Some(_))) {
        return Ok(None);
    }
    let copy = ReadOnlyCopy::of(&config.data, &config.command).map_err(EngineError::from)?;
    eprintln!("selvedge: {} may only be read: a copy of it in {} is looked at, and removed then", config.data.display(), copy.data().display());
    let common = Common { data: Some(copy.data()), ..common.clone() };
    Ok(Some((copy, common)))
}

//! `man`: the manual, made of the words of the command line.

use std::path::Path;

use clap::CommandFactory;

use super::args::Cli;
use super::exit::{Code, Stop};
use super::print;

/// Prints the first page, or writes all of them into a folder.
pub fn man(to: Option<&Path>) -> Result<Code, Stop> {
    match to {
        None => {
            let mut page = Vec::new();
            clap_mangen::Man::new(Cli::command()).render(&mut page).map_err(|error| Stop::new(Code::Failed, error.to_string()))?;
            print::raw(&page)?;
        }
        Some(folder) => {
            let failed = |error: std::io::Error| Stop::new(Code::Configuration, format!("the manual cannot be written into {}: {error}", folder.display()));
            std::fs::create_dir_all(folder).map_err(failed)?;
            clap_mangen::generate_to(Cli::command(), folder).map_err(failed)?;
        }
    }
    Ok(Code::Done)
}

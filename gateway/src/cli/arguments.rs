//! The flags of the settings: one for each entry of the table, so that none can be missing.

use std::path::PathBuf;

use clap::builder::{PathBufValueParser, StyledStr};
use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches};

use super::Failure;
use crate::config::{Config, Given, Loaded, SETTINGS, Setting, load};

/// Variable of the environment that names the configuration file.
const FILE_VARIABLE: &str = "IRIS_CONFIG";

/// What the command line says about settings.
#[derive(Debug, Default)]
pub(super) struct SettingArguments {
    file: Option<PathBuf>,
    flags: Vec<(&'static str, String)>,
}

impl SettingArguments {
    /// The effective configuration of this machine, environment and command line.
    pub(super) fn load(&self) -> Result<Loaded, Failure> {
        let machine = iris_tune::read_machine();
        let plan = iris_tune::plan(&machine);
        let given = Given {
            file: self.file.clone(),
            // One that is not Unicode cannot be the value of a setting; it is left out.
            environment: std::env::vars_os()
                .filter_map(|(name, value)| {
                    Some((name.into_string().ok()?, value.into_string().ok()?))
                })
                .collect(),
            flags: self.flags.clone(),
        };
        load(Config::planned(&plan), &machine.cpus, &given)
            .map_err(|error| Failure::Usage(error.to_string()))
    }
}

impl Args for SettingArguments {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("config")
            .long("config")
            .value_name("FILE")
            .env(FILE_VARIABLE)
            .hide_env_values(true)
            .value_parser(PathBufValueParser::new())
            .help("Configuration file (TOML); an unknown key in it is an error");
        SETTINGS.iter().fold(command.arg(file), |command, setting| {
            command.arg(flag(setting))
        })
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for SettingArguments {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut arguments = SettingArguments::default();
        arguments.update_from_arg_matches(matches)?;
        Ok(arguments)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("config").cloned();
        self.flags = SETTINGS
            .iter()
            .filter_map(|setting| {
                let values: Vec<&str> = matches
                    .get_many::<String>(setting.key)?
                    .map(String::as_str)
                    .collect();
                Some((setting.key, values.join(",")))
            })
            .collect();
        Ok(())
    }
}

fn flag(setting: &'static Setting) -> Arg {
    Arg::new(setting.key)
        .long(setting.flag())
        .value_name(setting.value_name)
        .help_heading(setting.group.heading())
        .action(if setting.repeats {
            ArgAction::Append
        } else {
            ArgAction::Set
        })
        .help(help(setting))
}

fn help(setting: &Setting) -> StyledStr {
    let shown = setting.shown(&Config::embedded(0));
    let default = match setting.key {
        // Depends on the machine; its help says on what.
        "max_connections" => String::new(),
        _ => format!(" [default: {}]", shown.trim_matches(['"', '[', ']'])),
    };
    format!("{}{default}", setting.help).into()
}

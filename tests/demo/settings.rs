//! What can be set, as environment variables (`NODES=3 make demo`) or as flags.

use clap::{CommandFactory as _, Parser, builder::FalseyValueParser, error::ErrorKind};

/// Watch nodes take an update and reboot, no more of them at a time than the quota
#[derive(Clone, Debug, Parser)]
#[command(name = "demo", override_usage = "[NODES=5|real] [QUOTA=1] [KEEP=1] make demo")]
pub(crate) struct Settings {
    /// How many nodes to simulate, 2 to 20; or `real`: five machines that really reboot, which takes root
    #[arg(long, env = "NODES", default_value = "5", value_parser = nodes, value_name = "NUMBER", hide_env_values = true)]
    pub(crate) nodes: Nodes,

    /// How many of them may be out of service at a time
    #[arg(long, env = "QUOTA", default_value = "1", value_parser = quota, value_name = "NUMBER", hide_env_values = true)]
    pub(crate) quota: usize,

    /// Leave the cluster up afterwards, to play with it until Ctrl-C
    #[arg(long, env = "KEEP", value_parser = FalseyValueParser::new(), hide_env_values = true)]
    pub(crate) keep: bool,
}

/// The nodes of the demo.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Nodes {
    /// How many there are.
    pub(crate) count: usize,
    /// Whether they really reboot.
    pub(crate) real: bool,
}

/// As many as two cores carry with ease.
const REAL: Nodes = Nodes { count: 5, real: true };

/// Where few nodes are drained, their pods must go to the others; more nodes only make the demo long.
const NODES: std::ops::RangeInclusive<usize> = 2..=20;

/// The settings of this process; `--help` and errors end it, as clap has it.
pub(crate) fn parse() -> Settings {
    let settings = Settings::parse();
    if let Err(why) = settings.fit() {
        Settings::command().error(ErrorKind::ValueValidation, why).exit();
    }
    settings
}

impl Settings {
    /// The pods of the last node that is drained need a node to go to, or their PDB holds up everything.
    fn fit(&self) -> Result<(), String> {
        let nodes = self.nodes.count;
        if self.quota < nodes {
            return Ok(());
        }
        let (quota, most) = (self.quota, nodes - 1);
        Err(format!(
            "QUOTA={quota} with NODES={nodes}: at most {most}, as one node has to stay in service for the pods"
        ))
    }
}

fn nodes(text: &str) -> Result<Nodes, String> {
    if text == "real" {
        return Ok(REAL);
    }
    let number = text.parse().ok().filter(|number| NODES.contains(number));
    let nodes = number.map(|count| Nodes { count, real: false });
    nodes.ok_or_else(|| format!("NODES is a number from {} to {}, or the word real", NODES.start(), NODES.end()))
}

fn quota(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(0) => Err("with QUOTA=0 no node would ever reboot; at least 1".to_owned()),
        Ok(number) => Ok(number),
        Err(_) => Err("QUOTA is a number of nodes, at least 1".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(args: &[&str], expected: Result<(usize, usize), &str>) {
        let parsed = Settings::try_parse_from(["demo"].iter().chain(args));
        let settings = parsed.map_err(|error| error.to_string()).and_then(|settings| {
            settings.fit()?;
            Ok((settings.nodes.count, settings.quota))
        });
        match (settings, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{args:?}"),
            (Err(found), Err(words)) => assert!(found.contains(words), "{args:?}: {found}"),
            (found, _) => panic!("{args:?}: {found:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn numbers_that_cannot_work_are_refused_with_what_would() {
        check(&["--nodes=5", "--quota=1"], Ok((5, 1)));
        check(&["--nodes=20", "--quota=19"], Ok((20, 19)));
        check(&["--nodes=1"], Err("from 2 to 20"));
        check(&["--nodes=21"], Err("from 2 to 20"));
        check(&["--nodes=-1"], Err("from 2 to 20"));
        check(&["--nodes="], Err("from 2 to 20"));
        check(&["--nodes=real"], Ok((5, 1)));
        check(&["--nodes=real", "--quota=5"], Err("at most 4"));
        check(&["--nodes=reel"], Err("or the word real"));
        check(&["--quota=0"], Err("no node would ever reboot"));
        check(&["--quota=50%"], Err("a number of nodes"));
        check(&["--nodes=3", "--quota=3"], Err("at most 2"));
    }

    #[test]
    fn the_definition_holds_together() {
        Settings::command().debug_assert();
    }
}

//! Options of curl that do not matter for a handshake: a command that was copied from a browser
//! runs, and a note says what was ignored.

use clap::{Arg, ArgAction, ArgMatches, Args, Command, Error, FromArgMatches};

/// Short and long names of options without a value.
const FLAGS: &[(Option<char>, &str)] = &[
    (Some('s'), "silent"),
    (Some('S'), "show-error"),
    (Some('i'), "include"),
    (Some('N'), "no-buffer"),
    (Some('f'), "fail"),
    (Some('g'), "globoff"),
    (Some('j'), "junk-session-cookies"),
    (Some('n'), "netrc"),
    (Some('q'), "disable"),
    (Some('O'), "remote-name"),
    (Some('0'), "http1.0"),
    (Some('1'), "tlsv1"),
    (Some('G'), "get"),
    (Some('I'), "head"),
    (Some('a'), "append"),
    (None, "anyauth"),
    (None, "basic"),
    (None, "compressed"),
    (None, "fail-with-body"),
    (None, "http1.1"),
    (None, "no-alpn"),
    (None, "no-keepalive"),
    (None, "no-progress-meter"),
    (None, "path-as-is"),
    (None, "progress-bar"),
    (None, "raw"),
    (None, "tcp-nodelay"),
    (None, "tlsv1.2"),
    (None, "tlsv1.3"),
];

/// Short and long names of options with a value.
const VALUES: &[(Option<char>, &str)] = &[
    (Some('X'), "request"),
    (Some('o'), "output"),
    (Some('w'), "write-out"),
    (Some('d'), "data"),
    (Some('F'), "form"),
    (Some('c'), "cookie-jar"),
    (Some('D'), "dump-header"),
    (Some('r'), "range"),
    (Some('T'), "upload-file"),
    (Some('K'), "config"),
    (Some('e'), "referer"),
    (None, "ciphers"),
    (None, "connect-timeout"),
    (None, "data-ascii"),
    (None, "data-binary"),
    (None, "data-raw"),
    (None, "data-urlencode"),
    (None, "expect100-timeout"),
    (None, "interface"),
    (None, "keepalive-time"),
    (None, "limit-rate"),
    (None, "max-redirs"),
    (None, "retry"),
    (None, "retry-delay"),
    (None, "stderr"),
    (None, "tls-max"),
    (None, "trace-ascii"),
];

/// The ignored options of a command line.
#[derive(Clone, Debug, Default)]
pub(crate) struct Ignored(pub(crate) Vec<String>);

impl FromArgMatches for Ignored {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, Error> {
        let flags = FLAGS.iter().filter(|(_, long)| matches.get_count(long) > 0);
        let values = VALUES.iter().filter(|(_, long)| matches.contains_id(long));
        Ok(Self(flags.chain(values).map(|(_, long)| format!("--{long}")).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Ignored {
    fn augment_args(command: Command) -> Command {
        let arg = |(short, long): &(Option<char>, &'static str)| {
            let arg = Arg::new(*long).long(*long).hide(true);
            match short {
                Some(short) => arg.short(*short),
                None => arg,
            }
        };
        let flags = FLAGS.iter().map(|names| arg(names).action(ArgAction::Count));
        let values = VALUES.iter().map(|names| {
            arg(names).action(ArgAction::Append).value_name("VALUE").allow_hyphen_values(true)
        });
        command.args(flags).args(values)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

//! Changing the one word of the state file: from a text to the same text with another role, or the reason why not.
//!
//! Only the bytes of that word change; comments, blanks and line ends are a person's and stay. Pure: the text comes in
//! and goes out, the file itself is the business of [`super::rewrite`].

use super::diagnostic::Diagnostic;
use super::file::{Entry, Kind, Node, parse};
use super::model::{Desired, Role};
use super::validate::{Surroundings, validate};

/// The file's text with the role that was asked for.
#[derive(Clone, Debug, PartialEq)]
pub struct Edited {
    /// The text. If the role was that one already, the text as it was.
    pub text: String,
    /// Which key says it: `role`, or `nodes.alpha.role` in a profile of both laptops.
    pub key: String,
    /// The role that it said before.
    pub before: Role,
    /// What the new text declares.
    pub desired: Desired,
}

/// Why the text was not edited.
#[derive(Clone, Debug, PartialEq)]
pub enum NotEdited {
    /// It is not valid as it stands.
    Invalid(Vec<Diagnostic>),
    /// It would not be valid with that role.
    WouldBeInvalid(Vec<Diagnostic>),
    /// The word is written in a way that cannot be changed safely.
    Unusual {
        /// The line of its key, from 1.
        line: usize,
        /// What is unusual about it.
        why: &'static str,
    },
}

/// Declares another role in a text.
pub fn set_role(text: &str, surroundings: &Surroundings, role: Role) -> Result<Edited, NotEdited> {
    let desired = validate(text, surroundings).map_err(NotEdited::Invalid)?;
    let before = desired.role;
    // A valid file has a tree and a role; what cannot happen is refused like what must not.
    let unusual = |line, why| NotEdited::Unusual { line, why };
    let (Some(root), _) = parse(text) else {
        return Err(unusual(1, "it cannot be found"));
    };
    let Some((key, entry)) = find(&root, &desired) else {
        return Err(unusual(1, "it cannot be found"));
    };
    if before == role {
        return Ok(Edited {
            text: text.to_owned(),
            key,
            before,
            desired,
        });
    }
    let (line, bytes) = (entry.at.line, entry.value.at.bytes.clone());
    let written = text.get(bytes.clone()).unwrap_or_default();
    let quote = match written.chars().next() {
        Some(quote @ ('"' | '\'')) if written.len() > 1 && written.ends_with(quote) => quote.to_string(),
        _ if written == before.word() => String::new(),
        _ => return Err(unusual(line, "it is neither a plain word nor one in quotes")),
    };
    if written.contains(['\n', '\r']) {
        return Err(unusual(line, "it spans more than one line"));
    }
    let new = [
        &text[..bytes.start],
        &quote,
        role.word(),
        &quote,
        &text[bytes.end..],
    ]
    .concat();

    // Trust is good: the new text has to declare that role here and nothing else that is new.
    let declared = validate(&new, surroundings).map_err(NotEdited::WouldBeInvalid)?;
    let expected = Desired {
        role,
        unsupported: declared.unsupported.clone(),
        ..desired
    };
    if declared != expected {
        return Err(unusual(line, "changing it would change something else as well"));
    }
    Ok(Edited {
        text: new,
        key,
        before,
        desired: declared,
    })
}

/// What a profile declares of both laptops.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Both {
    /// This laptop's role.
    pub own: Role,
    /// The other laptop's name.
    pub other: String,
    /// Its role.
    pub theirs: Role,
}

/// Reads the roles of both laptops of a profile; `None`: the text declares this laptop only.
pub fn both(text: &str, surroundings: &Surroundings) -> Result<Option<Both>, NotEdited> {
    let own = validate(text, surroundings).map_err(NotEdited::Invalid)?;
    let (Some(root), _) = parse(text) else {
        return Ok(None);
    };
    let other = root.get("nodes").and_then(|nodes| match &nodes.value.kind {
        Kind::Map(entries) => entries.iter().find(|entry| entry.name != own.node),
        Kind::Scalar { .. } | Kind::List(_) | Kind::Bad => None,
    });
    let Some(other) = other else {
        return Ok(None);
    };
    let theirs = validate(text, &seen_by(surroundings, &other.name)).map_err(NotEdited::Invalid)?;
    Ok(Some(Both {
        own: own.role,
        other: other.name.clone(),
        theirs: theirs.role,
    }))
}

/// A profile's text with other roles for both laptops.
#[derive(Clone, Debug, PartialEq)]
pub struct EditedBoth {
    /// The text.
    pub text: String,
    /// This laptop's edit.
    pub own: Edited,
    /// The other one's.
    pub other: Edited,
}

/// Declares these roles for both laptops of a profile, in one edit; `None`: the text declares this laptop only. An error
/// comes with the role that could not be written.
pub fn set_both(
    text: &str,
    surroundings: &Surroundings,
    own: Role,
    theirs: Role,
) -> Result<Option<EditedBoth>, (NotEdited, Role)> {
    let Some(both) = both(text, surroundings).map_err(|error| (error, own))? else {
        return Ok(None);
    };
    let other =
        set_role(text, &seen_by(surroundings, &both.other), theirs).map_err(|error| (error, theirs))?;
    let own = set_role(&other.text, surroundings, own).map_err(|error| (error, own))?;
    Ok(Some(EditedBoth {
        text: own.text.clone(),
        own,
        other,
    }))
}

/// As the laptop of that name sees the same file.
fn seen_by(surroundings: &Surroundings, node: &str) -> Surroundings {
    Surroundings {
        node: Some(node.to_owned()),
        ..surroundings.clone()
    }
}

/// The entry that declares this laptop's role, and the path of its key.
fn find<'a>(root: &'a Node, desired: &Desired) -> Option<(String, &'a Entry)> {
    if let Some(entry) = root.get("role") {
        return Some(("role".to_owned(), entry));
    }
    // Not as a dotted path: a laptop's name may have dots itself.
    let own = root.get("nodes")?.value.get(&desired.node)?;
    let entry = own.value.get("role")?;
    Some((format!("nodes.{}.role", own.name), entry))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROLES: [Role; 4] = [Role::Primary, Role::Standby, Role::Failover, Role::Recovery];

    fn bravo() -> Surroundings {
        Surroundings {
            path: "/etc/paceline/state.yaml".into(),
            root: false,
            user: "crew".to_owned(),
            hostname: "bravo.race.local".to_owned(),
            node: None,
            addresses: vec!["192.168.40.17".parse().unwrap()],
            state_home: "/home/crew/.local/state".into(),
        }
    }

    fn edited(text: &str) -> String {
        set_role(text, &bravo(), Role::Failover).unwrap().text
    }

    #[test]
    fn only_the_word_changes() {
        for (before, after) in [
            ("role: standby", "role: failover"),
            ("role:   standby   # now\n", "role:   failover   # now\n"),
            (
                "\u{feff}role: \"standby\"\r\n# é\r\n",
                "\u{feff}role: \"failover\"\r\n# é\r\n",
            ),
            ("{ \"role\":'standby'}", "{ \"role\":'failover'}"),
            (
                "# role: standby\n? role\n: standby\n",
                "# role: standby\n? role\n: failover\n",
            ),
            (
                "---\nrole: \"stand\\x62y\"\n...\n",
                "---\nrole: \"failover\"\n...\n",
            ),
            ("role:\n  standby\n", "role:\n  failover\n"),
        ] {
            assert_eq!(edited(before), after);
        }
    }

    #[test]
    fn a_profile_is_edited_in_the_entry_of_this_laptop() {
        let flow = "nodes:\n  alpha: { role: standby, address: a }\n  bravo: { role: standby, address: b }\n";
        let now = set_role(flow, &bravo(), Role::Primary).unwrap();
        assert_eq!(now.key, "nodes.bravo.role");
        assert_eq!(
            now.text,
            flow.replace("bravo: { role: standby", "bravo: { role: primary")
        );
        let alpha = Surroundings {
            node: Some("alpha".to_owned()),
            ..bravo()
        };
        let now = set_role(flow, &alpha, Role::Primary).unwrap();
        assert_eq!(
            now.text,
            flow.replace("alpha: { role: standby", "alpha: { role: primary")
        );
    }

    #[test]
    fn both_roles_change_in_one_edit() {
        let text = "# both\nnodes:\n  alpha: { role: failover, address: a }  # was gone\n  bravo: { role: \"standby\", address: b }\n";
        assert_eq!(
            both(text, &bravo()).unwrap(),
            Some(Both {
                own: Role::Standby,
                other: "alpha".to_owned(),
                theirs: Role::Failover,
            })
        );
        let edited = set_both(text, &bravo(), Role::Primary, Role::Standby)
            .unwrap()
            .unwrap();
        assert_eq!(
            edited.text,
            "# both\nnodes:\n  alpha: { role: standby, address: a }  # was gone\n  bravo: { role: \"primary\", address: b }\n"
        );
        assert_eq!(
            (
                edited.own.key.as_str(),
                edited.own.before,
                edited.own.desired.role
            ),
            ("nodes.bravo.role", Role::Standby, Role::Primary)
        );
        assert_eq!(
            (
                edited.other.key.as_str(),
                edited.other.before,
                edited.other.desired.role
            ),
            ("nodes.alpha.role", Role::Failover, Role::Standby)
        );
        // Back again, byte by byte.
        let back = set_both(&edited.text, &bravo(), Role::Standby, Role::Failover)
            .unwrap()
            .unwrap();
        assert_eq!(back.text, text);
    }

    #[test]
    fn one_laptop_alone_has_no_other_role() {
        for text in [
            "role: standby\n",
            "nodes: { bravo: { role: primary, address: b } }\n",
        ] {
            assert_eq!(both(text, &bravo()).unwrap(), None);
            assert_eq!(
                set_both(text, &bravo(), Role::Primary, Role::Standby).unwrap(),
                None
            );
        }
    }

    #[test]
    fn an_edit_of_both_says_which_one_cannot_be_made() {
        let text = "nodes:\n  alpha: { role: primary, address: a }\n  bravo:\n    role: >-\n      standby\n    address: b\n";
        let refused = set_both(text, &bravo(), Role::Primary, Role::Standby);
        assert!(
            matches!(refused, Err((NotEdited::Unusual { line: 4, .. }, Role::Primary))),
            "{refused:?}"
        );
    }

    #[test]
    fn a_word_over_several_lines_is_refused() {
        for text in [
            "role: |-\n  standby\n",
            "role: \"stand\\\n  by\"\n",
            "role: >-\n  standby\n",
        ] {
            let refused = set_role(text, &bravo(), Role::Primary);
            assert!(
                matches!(refused, Err(NotEdited::Unusual { line: 1, .. })),
                "{refused:?}"
            );
        }
    }

    #[test]
    fn what_is_or_would_be_invalid_is_refused() {
        for text in [
            "",
            "node: b\n",
            "role: standbye\n",
            "role: &r standby\n",
            "a: &r standby\nrole: *r\n",
        ] {
            let refused = set_role(text, &bravo(), Role::Primary);
            assert!(matches!(refused, Err(NotEdited::Invalid(_))), "{refused:?}");
        }
        let refused = set_role("role: standby\n", &bravo(), Role::Recovery);
        assert!(
            matches!(refused, Err(NotEdited::WouldBeInvalid(_))),
            "{refused:?}"
        );
    }

    /// Texts of valid files: notations, line ends, blanks and comments mixed.
    fn text() -> impl Strategy<Value = (String, String)> {
        let role = "(primary|standby|failover)";
        let comment = "( {0,3}| +# [a-zé: #'\"]{0,12})";
        let end = prop_oneof![Just("\n"), Just("\r\n")];
        let quote = prop_oneof![Just(""), Just("\""), Just("'")];
        let form = 0..4_usize;
        (role, comment, " {1,4}", end, quote, form, any::<bool>()).prop_map(
            |(role, comment, gap, end, quote, form, last)| {
                let word = format!("{quote}{role}{quote}");
                let (head, tail) = match form {
                    0 => (format!("role:{gap}"), format!("{comment}{end}node: b")),
                    1 => (format!("# é{end}{{ node: b, role:{gap}"), format!("{gap}}}{comment}")),
                    2 => (
                        format!("nodes:{end}  alpha:{end}    role: standby{end}    address: a{end}  bravo:{end}    role:{gap}"),
                        format!("{comment}{end}    address: b"),
                    ),
                    _ => (
                        format!("nodes: {{ bravo: {{ address: b, role:{gap}"),
                        format!("{gap}}}, alpha: {{ role: standby, address: a }} }}{comment}"),
                    ),
                };
                let tail = if last { tail + end } else { tail };
                (format!("{head}{word}{tail}"), format!("{head}{quote}ROLE{quote}{tail}"))
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

        #[test]
        fn every_other_byte_stays(case in text(), role in prop::sample::select(&ROLES[..3])) {
            let (text, frame) = case;
            let now = set_role(&text, &bravo(), role);
            prop_assert!(now.is_ok(), "{text:?}: {now:?}");
            let now = now.unwrap();
            prop_assert_eq!(now.desired.role, role);
            prop_assert_eq!(&now.text, &frame.replace("ROLE", role.word()));
            // And back again.
            let back = set_role(&now.text, &bravo(), now.before).unwrap();
            prop_assert_eq!(back.text, text);
        }

        #[test]
        fn no_text_is_damaged(text in "[-a-z:{}\\[\\],&*!|>'\"# \\n]{0,30}", role in prop::sample::select(&ROLES[..])) {
            let text = format!("{text}\nrole: standby\n");
            if let Ok(now) = set_role(&text, &bravo(), role) {
                prop_assert_eq!(now.desired.role, role);
                prop_assert_eq!(now.text.replacen(role.word(), "standby", 1), text);
            }
        }
    }
}

"""How the text of a command is read before a shell reads it: its words, its lines, the launchers in it."""

from __future__ import annotations

import pickle
import shlex

import pytest

from azml_dist.notation.argv import UNKNOWN, Word, commands
from azml_dist.notation.expressions import OpenCount, inputs_of_any_in
from azml_dist.notation.shell import broken_by, launchers, lines, placeholders


def words(text: str) -> list[list[str]]:
    return [[word.text for word in command.words] for command in commands(text)]


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("python train.py --a 1", [["python", "train.py", "--a", "1"]]),
        ("a; b && c | d", [["a"], ["b"], ["c"], ["d"]]),
        ("a;;b\n\nc", [["a"], ["b"], ["c"]]),
        ("a > out 2>&1 b", [["a", "b"]]),
        ("a >", [["a"]]),
        ("a > 'o u t' b > c", [["a", "b"]]),
        ("a &> log >> more < in b", [["a", "b"]]),
        ("cat <<< text; b", [["cat"], ["b"]]),
        ("a # a comment; x\nb", [["a"], ["b"]]),
        ("a#b", [["a#b"]]),
        ("# only", []),
        ("a \\\n  b\tc\r\nd", [["a", "b", "c"], ["d"]]),
        ("'a b' \"c d\" e\\ f '' \"it's\" 'a\\'", [["a b", "c d", "e f", "", "it's", "a\\"]]),
        ("a'b'\"c\"d", [["abcd"]]),
        ("! a; { b; }; time c", [["a"], ["b"], ["time", "c"]]),
        ("for i in 1 2; do a $i; done; b", [["i", "in", "1", "2"], ["a", "$i"], ["b"]]),
        ("", []),
    ],
)
def test_a_text_is_split_into_commands_and_words(text: str, found: list[list[str]]) -> None:
    assert [one for one in words(text) if one != [""]] == found


@pytest.mark.parametrize("text", ["a 'b c' d\\ e", 'x "y z" w', "p 'q\"r' \"s't\"", "a\\\\b", "'$X' \\$X"])
def test_words_without_variables_are_those_of_a_shell(text: str) -> None:
    [command] = commands(text)

    assert [word.text for word in command.words] == shlex.split(text)
    assert all(word.known and word.single for word in command.words)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("$X a", Word("$X", False, False)),
        ('"$X" a', Word("$X", False, True)),
        ("a$X_1.b", Word("a$X_1.b", False, False)),
        ("${X:-a b}c d", Word("${X:-a b}c", False, False)),
        ("${X}{Y} d", Word("${X}{Y}", False, False)),
        ("$(a b (c) d)e f", Word("$(a b (c) d)e", False, False)),
        ("$(a ${b} ')'", Word("$(a ${b} ')", False, False)),
        ("`x y`z w", Word("`x y`z", False, False)),
        ("`x` `y`", Word("`x`", False, False)),
        ("$(x)$(y) $(z)", Word("$(x)$(y)", False, False)),
        ("`x y", Word("`x y", False, False)),
        ("$(x y", Word("$(x y", False, False)),
        ("$? a", Word("$?", False, False)),
        ("$@ a", Word("$@", False, False)),
        ("$*x a", Word("$*x", False, False)),
        ("$# a", Word("$#", False, False)),
        ("$-a", Word("$-a", False, False)),
        ("$", Word("$", False, False)),
        ("a*b", Word("a*b", True, False)),
        ("a?", Word("a?", True, False)),
        ("{a,b}", Word("{a,b}", True, False)),
        ("[ab]c", Word("[ab]c", True, False)),
        ("'a*b'", Word("a*b", True, True)),
        ('"a"*', Word("a*", True, False)),
        (f"x{UNKNOWN}", Word(f"x{UNKNOWN}", False, True)),
        (f"'{UNKNOWN}'", Word(UNKNOWN, False, True)),
    ],
)
def test_of_each_word_it_is_known_whether_it_is_final_and_whether_it_is_one(text: str, word: Word) -> None:
    first = next(commands(text))

    assert first.words[0] == word


@pytest.mark.parametrize(
    ("text", "certain"),
    [
        ("a; b && c", [True, True, True]),
        ("a; if b; then c; fi; d", [True, False, False, False]),
        ("a; b || c; d", [True, False, False, False]),
        ("a; exit 1; b", [True, False, False]),
        ("f() { a; }; b", [False, False, False]),
        ("a | b & c", [True, True, True]),
    ],
)
def test_a_command_is_certain_until_the_text_branches_or_ends(text: str, certain: list[bool]) -> None:
    assert [one.certain for one in commands(text)] == certain


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\nb", [(1, "a"), (2, "b")]),
        ("a\n\n# c\n  b  \n", [(1, "a"), (4, "b")]),
        ("a \\\n  b\nc", [(1, "a b"), (3, "c")]),
        ("a &&\nb ||\nc |\nd\ne", [(1, "a && b || c | d"), (5, "e")]),
        ("a 'b\nc' d\ne", [(1, "a 'b c' d"), (3, "e")]),
        ('a "b\nit\'s" d\ne', [(1, 'a "b it\'s" d'), (3, "e")]),
        ("a \\'b\nc", [(1, "a \\'b"), (2, "c")]),
        ("a 'b\\'\nc", [(1, "a 'b\\'"), (2, "c")]),
        ('a "b\\"\nc"\nd', [(1, 'a "b\\" c"'), (3, "d")]),
        ("a # it's\nb", [(1, "a # it's"), (2, "b")]),
        ("a#it's\nb'", [(1, "a#it's b'")]),
        ("#it's\nb", [(2, "b")]),
        ("cat <<EOF\nx 'y\nEOF\nb", [(1, "cat <<EOF"), (4, "b")]),
        ("cat <<- 'END' > f\n x\n END\nb", [(1, "cat <<- 'END' > f"), (4, "b")]),
        ("a &&", [(1, "a &&")]),
        ("a && \n b", [(1, "a && b")]),
        ("a \\ \n b", [(1, "a \\"), (2, "b")]),
        ("a 'b", [(1, "a 'b")]),
        ("", []),
    ],
)
def test_a_line_goes_on_as_far_as_bash_reads_it(text: str, found: list[tuple[int, str]]) -> None:
    assert [(line.number, line.text) for line in lines(text)] == found


@pytest.mark.parametrize(
    ("line", "may_fail", "stops"),
    [
        ("python train.py", True, False),
        ("python train.py || true", False, False),
        ("python train.py &", False, False),
        ("A=1", False, False),
        ("A=1 python", False, False),
        ("echo a", False, False),
        ("set -e", False, True),
        ("set -ex", False, True),
        ("set -o errexit", False, True),
        ("set -uo errexit", False, True),
        ("set -x", False, False),
        ("set -x -e", False, True),
        ("exec python train.py", True, True),
        ("trap stop EXIT", True, True),
        ("executable", True, False),
    ],
)
def test_of_a_line_it_is_known_whether_it_may_fail_and_whether_failures_stop(
    line: str, may_fail: bool, stops: bool
) -> None:
    [found] = lines(line)

    assert (found.may_fail, found.stops_at_failures) == (may_fail, stops)


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("torchrun --nproc-per-node 2 train.py", [("torchrun", False)]),
        ("a; sudo env A=1 /usr/bin/mpirun -n 2 b", [("mpirun", True)]),
        ("accelerate launch train.py", [("accelerate launch", False)]),
        ("accelerate config; accelerate", []),
        ("python3.11 -u -m torch.distributed.run train.py", [("python3.11 -m torch.distributed.run", False)]),
        ("python -m accelerate.commands.launch a.py", [("python -m accelerate.commands.launch", False)]),
        ("python train.py -m torch.distributed.run", []),
        ("python -m torch.distributed.other", []),
        ("python torchrun.py; echo torchrun", []),
        ("deepspeed a.py && horovodrun b", [("deepspeed", False), ("horovodrun", True)]),
        ("echo 'torchrun x'", []),
        ("env \\\n torchrun \\\n a", [("torchrun", False)]),
        ("env\\\ntorchrun a", [("torchrun", False)]),
        ("bash -c 'torchrun a.py'", [("torchrun", False)]),
        ('/bin/bash -l -ec "cd x && accelerate launch a.py"', [("accelerate launch", False)]),
        ("""sh -c "bash -c 'mpirun a'" """, [("mpirun", True)]),
        ("bash -euo pipefail -c 'torchrun a.py'", [("torchrun", False)]),
        ("bash -ce -o pipefail -- 'torchrun a.py'", [("torchrun", False)]),
        ("bash -eo pipefail torchrun", []),
        ("bash run.sh -c 'torchrun a.py'", []),
        ("bash -c", []),
        ("bash torchrun -c", []),
        ("timeout -k 5 2h nice -n 10 torchrun a.py", [("torchrun", False)]),
        ("numactl --cpunodebind=0 A=1 mpirun a", [("mpirun", True)]),
        ("timeout -s INT 60 taskset 0xff numactl -i all torchrun a.py", [("torchrun", False)]),
        ("timeout 60 python torchrun.py", []),
        ("python -V; python -m; bash -c; sh; torchrun a", [("torchrun", False)]),
        ("torchrun 'unclosed", [("torchrun", False)]),
        ("'unclosed; torchrun x", []),
    ],
)
def test_only_programs_that_are_started_are_launchers(command: str, found: list[tuple[str, bool]]) -> None:
    assert [(one.text, one.is_mpi) for one in launchers(command)] == found


def test_an_option_of_a_launcher_has_its_value_in_either_form() -> None:
    [launcher] = launchers("A=1 torchrun --nproc-per-node 2 --nnodes=3 train.py --last")

    assert launcher.words[0] == "torchrun"
    assert launcher.option("--nproc_per_node", "--nproc-per-node") == "2"
    assert launcher.option("--nnodes") == "3"
    assert launcher.option("--last") == ""
    assert launcher.option("--rdzv-id") is None


@pytest.mark.parametrize(
    ("command", "quotings"),
    [
        ("a ${{inputs.a}} \"${{inputs.b}}\" '${{outputs.c}}'", ["", '"', "'"]),
        ("\"a $(b ${{inputs.a}} '${{inputs.b}}') ${{inputs.c}}\"", ["", "'", '"']),
        ("'it\"s ${{inputs.a}}' \"it's ${{inputs.b}}\"", ["'", '"']),
        ("a # ${{inputs.a}}\n${{inputs.b}}", [""]),
        ("a\nb # ${{inputs.a}}\n'${{inputs.b}}'", ["'"]),
        ("a # ${{inputs.a}}", []),
        ("$(a ( b ) '${{inputs.a}}') \"${{inputs.b}}\"", ["'", '"']),
        ("a#${{inputs.a}}", [""]),
        ('"a # ${{inputs.a}}"', ['"']),
        ('\\"${{inputs.a}} \\${{inputs.b}}', ["", ""]),
        ("`a ${{inputs.a}}` ${{inputs.b}}", ["", ""]),
        ("$( (a) ${{inputs.a}} ) '${{inputs.b}}'", ["", "'"]),
    ],
)
def test_the_quotes_around_an_expression_are_known(command: str, quotings: list[str]) -> None:
    assert [one.quoting for one in placeholders(command)] == quotings


@pytest.mark.parametrize(
    ("value", "quoting", "why"),
    [
        ("a b", "'", None),
        ("it's", "'", "it contains a ' and is in single quotes"),
        ("a b'c", '"', None),
        ("a$b", '"', "double quotes do not protect a $"),
        ("5$", '"', None),
        ("a\\", '"', "double quotes do not protect a \\"),
        ("a\\b", '"', None),
        ("a`", '"', "double quotes do not protect a `"),
        ("", "", "it is empty, so the argument would vanish"),
        ("#a", "", "it starts with a #"),
        ("~a", "", "it starts with a ~"),
        ("a#~", "", None),
        ("a b", "", "it contains a space and is not in quotes"),
        ("a\tb", "", "it contains a tab and is not in quotes"),
        ("a\nb", "", "it contains a line break and is not in quotes"),
        ("a\rb", "", "it contains a carriage return and is not in quotes"),
        ("a;b", "", "it contains a ; and is not in quotes"),
        ("a-b_c/d.e:f=g,h@i%j+k", "", None),
    ],
)
def test_a_value_that_the_shell_would_tear_apart_is_told_with_the_reason(
    value: str, quoting: str, why: str | None
) -> None:
    assert broken_by(value, quoting) == why


def test_a_count_that_is_an_expression_counts_as_one_and_is_its_text() -> None:
    count = OpenCount("${{parent.inputs.nodes}}")

    assert (int(count), count + 1, str(count), repr(count)) == (1, 2, *["'${{parent.inputs.nodes}}'"] * 2)
    assert count == OpenCount("${{parent.inputs.nodes}}")
    assert hash(count) == hash(OpenCount("${{parent.inputs.nodes}}"))
    assert count != OpenCount("${{parent.inputs.other}}")
    assert (count == 1, count != 1) == (False, True)
    assert {count: "a"}.get(OpenCount(count.text)) == "a"
    assert pickle.loads(pickle.dumps(count)).text == count.text


def test_inputs_of_the_job_and_of_its_pipeline_are_found_once_each_in_their_order() -> None:
    assert inputs_of_any_in("${{parent.inputs.b}} ${{inputs.a}} ${{ parent.inputs.b }} ${{outputs.c}}") == ["b", "a"]
    assert inputs_of_any_in("none") == []

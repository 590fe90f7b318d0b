"""Where the trusted authorities are looked for."""

from pathlib import Path

from mcphost.policy import certificate_bundle


def test_the_file_that_the_environment_names_comes_first(tmp_path: Path) -> None:
    bundle = tmp_path / "bundle.pem"
    bundle.write_text("")
    assert certificate_bundle({"SSL_CERT_FILE": str(bundle)}) == str(bundle)


def test_a_named_file_that_is_not_there_is_not_replaced_by_another(tmp_path: Path) -> None:
    assert certificate_bundle({"SSL_CERT_FILE": str(tmp_path / "none.pem")}) is None


def test_else_it_is_where_the_distributions_put_it() -> None:
    found = certificate_bundle({})
    assert found is None or Path(found).is_file()

defmodule LinesTest do
  use ExUnit.Case

  @tag :tmp_dir
  test "lines are what File.read finds", %{tmp_dir: directory} do
    path = Path.join(directory, "poem")
    text = Enum.map_join(1..1000, "\n", &"line #{&1}: häuser")
    File.write!(path, text)

    {:ok, lines} = Lines.open(path)

    assert Tuple.to_list(lines) == String.split(File.read!(path), "\n")
  end

  @tag :tmp_dir
  test "lines outlive their file", %{tmp_dir: directory} do
    path = Path.join(directory, "short-lived")
    last = String.duplicate("z", 100)
    File.write!(path, "first\n" <> last)
    {:ok, lines} = Lines.open(path)

    File.rm!(path)
    :erlang.garbage_collect()

    assert lines == {"first", last}
    assert :iommap.intact(elem(lines, 1))
  end

  test "a missing file is enoent" do
    assert Lines.open("no/such/file") == {:error, :enoent}
  end

  test "IEx has documentation of it" do
    assert {:docs_v1, _, :erlang, _, %{"en" => _}, _, _} = Code.fetch_docs(:iommap)
  end

  test "the library was built by mix and rebar3 for this project" do
    library = Application.app_dir(:iommap, "priv/iommap_nif.so")

    assert String.contains?(library, "/lines/_build/test/lib/iommap/")
    assert File.regular?(library)
  end
end

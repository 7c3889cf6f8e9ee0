defmodule Lines.MixProject do
  use Mix.Project

  def project do
    [
      app: :lines,
      version: "1.0.0",
      elixir: "~> 1.14",
      deps: [{:iommap, git: "https://example.invalid/iommap.git", branch: "main"}]
    ]
  end
end
